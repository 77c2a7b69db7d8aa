from __future__ import annotations

import io

import pytest
import torch
from torch import Tensor, nn

from engine.calling import call, output_tensor
from engine.errors import InputsDoNotFit, ModelRaised, UnsupportedOperator
from engine.seeds import derive, generator
from engine.structure import tensors_in


class Picky(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] > 3:
            raise ValueError("at most three rows, got " + str(x.shape[0]))
        assert x.shape[0] != 2, "two is unlucky"
        return self.linear(x)


def reloaded(module):
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(module), buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)


@pytest.mark.parametrize(
    ("rows", "says"), [(4, "at most three rows, got 4"), (2, "AssertionError: two is unlucky")]
)
def test_a_model_that_raises_is_quoted_with_its_line(rows, says):
    with pytest.raises(ModelRaised) as caught:
        call(reloaded(Picky()), (torch.zeros(rows, 4),))
    assert caught.value.title == f"the model raised: {says}"
    assert "RaiseException" in caught.value.where
    assert f"float32[{rows}, 4]" in caught.value.hint


def test_a_wrong_shape_names_the_operator_line():
    with pytest.raises(InputsDoNotFit) as caught:
        call(reloaded(Picky()), (torch.zeros(1, 5),), where="recipe.inputs")
    assert "mat1 and mat2 shapes cannot be multiplied (1x5 and 4x2)" in caught.value.title
    assert "torch.linear" in caught.value.hint
    assert caught.value.where == "recipe.inputs"


def test_a_wrong_shape_in_a_traced_model():
    traced = torch.jit.trace(nn.Sequential(nn.Linear(4, 2)), torch.zeros(1, 4))
    buffer = io.BytesIO()
    torch.jit.save(traced, buffer)
    buffer.seek(0)
    with pytest.raises(InputsDoNotFit) as caught:
        call(torch.jit.load(buffer), (torch.zeros(1, 5),))
    assert caught.value.title.endswith("mat1 and mat2 shapes cannot be multiplied (1x5 and 4x2)")


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ((), "missing value for argument 'x'"),
        ((torch.zeros(1, 4), torch.zeros(1)), "at most 2 argument"),
        (("x",), "Expected a value of type 'Tensor'"),
    ],
)
def test_a_wrong_number_or_type_of_arguments(inputs, says):
    with pytest.raises(InputsDoNotFit, match=says):
        call(reloaded(Picky()), inputs)


class Determinant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.det(x)


def test_an_operator_without_a_kernel_for_this_dtype():
    with pytest.raises(UnsupportedOperator) as caught:
        call(reloaded(Determinant()), (torch.eye(2, dtype=torch.bfloat16),))
    assert caught.value.hint


def test_output_tensor_of_tensor_tuple_and_mapping():
    one, two = torch.zeros(1), torch.ones(1)
    assert output_tensor(one) is one
    assert output_tensor((None, two, one)) is two
    assert output_tensor({"loss": one, "logits": two}) is two
    assert output_tensor({"scores": one}) is one
    assert [t.item() for t in tensors_in({"a": (one, [two])})] == [0, 1]


@pytest.mark.parametrize("output", [3.0, (), {"a": torch.zeros(1), "b": torch.zeros(1)}, None])
def test_output_without_a_clear_tensor(output):
    with pytest.raises(ModelRaised) as caught:
        output_tensor(output)
    assert caught.value.where == "forward"
    assert "logits" in caught.value.hint


def test_seeds_differ_by_purpose_and_not_by_history():
    assert derive(0, "a", 1) == derive(0, "a", 1)
    assert len({derive(0, "a", 1), derive(1, "a", 1), derive(0, "a", 2), derive(0, "b", 1)}) == 4
    first = torch.rand(3, generator=generator(5, "x"))
    torch.rand(100)
    assert torch.equal(first, torch.rand(3, generator=generator(5, "x")))
