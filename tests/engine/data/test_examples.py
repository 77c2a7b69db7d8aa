from __future__ import annotations

import pytest
from secateur.recipe_inputs import InputSpec

from engine.data.examples import example_inputs
from engine.errors import InputsDoNotFit


@pytest.mark.parametrize("shape", [[10**9, 10**9, 10**9], [10**8, 10**8]])
@pytest.mark.parametrize("dtype", ["float32", "int64", "bool"])
def test_a_shape_beyond_the_machine_is_named(shape: list[int], dtype: str) -> None:
    specs = [InputSpec(shape=[1, 4]), InputSpec(shape=shape, dtype=dtype)]
    with pytest.raises(InputsDoNotFit) as caught:
        example_inputs(specs, None, seed=0, device="cpu")
    assert caught.value.where == "recipe.inputs.1.shape"
    assert str(shape) in caught.value.title
    assert caught.value.hint
