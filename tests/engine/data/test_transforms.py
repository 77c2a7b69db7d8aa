from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from secateur.recipe_data import Data, Transform
from torch.nn import functional

from engine.data.batches import batches
from engine.data.draws import Draw
from engine.data.splits import Split
from engine.data.transforming import transformed
from engine.data.transforms import Chain, Transformed
from engine.errors import DatasetInvalid

ONE = TypeAdapter(Transform)
PIXELS = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).reshape(2, 3, 4, 5)
ROWS = torch.arange(2)


def chain(*transforms, target=False):
    return Chain([ONE.validate_python(one) for one in transforms], "field", target)


def test_bytes_become_fractions_and_channels_are_normalised():
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 3, 1, 1)
    found = chain({"kind": "normalize", "mean": [0.5, 0.2, 0.0], "std": [0.5, 1, 2]}).apply(
        pixels, torch.tensor([0]), None
    )
    assert torch.allclose(found.flatten(), torch.tensor([-1.0, 0.0, 0.5]), atol=1e-7)
    one = chain({"kind": "to_float", "dtype": "float16"}).apply(pixels, torch.tensor([0]), None)
    assert one.dtype == torch.float16


def test_resizing_halves_by_averaging():
    found = chain({"kind": "resize", "size": [2, 5]}).apply(PIXELS, ROWS, None)
    expected = functional.interpolate(PIXELS, (2, 5), mode="bilinear", antialias=True)
    assert torch.equal(found, expected)
    flat = torch.full((1, 1, 8, 8), 0.25)
    assert torch.allclose(
        chain({"kind": "resize", "size": [3, 3]}).apply(flat, ROWS[:1], None), torch.tensor(0.25)
    )


def test_targets_are_taken_and_not_averaged():
    mask = torch.tensor([[[0, 0, 7, 7], [0, 0, 7, 7], [3, 3, 1, 1], [3, 3, 1, 1]]])
    found = chain({"kind": "resize", "size": [2, 2]}, target=True).apply(mask, ROWS[:1], None)
    assert found.tolist() == [[[0, 7], [3, 1]]]


def test_crops_outside_of_training_are_the_middle():
    found = chain({"kind": "random_crop", "size": [2, 3], "padding": 1}).apply(PIXELS, ROWS, None)
    assert torch.equal(found, PIXELS[:, :, 1:3, 1:4])
    assert torch.equal(
        chain({"kind": "center_crop", "size": [2, 3]}).apply(PIXELS, ROWS, None), found
    )
    assert torch.equal(chain({"kind": "flip", "p": 1}).apply(PIXELS, ROWS, None), PIXELS)


sizes = st.integers(1, 7)


@given(sizes, sizes)
def test_resizing_to_the_same_size_changes_no_bit(height, width):
    pixels = torch.rand(2, 1, height, width)
    found = chain({"kind": "resize", "size": [height, width]}).apply(pixels, ROWS, None)
    assert torch.equal(found, pixels)


@given(st.integers(0, 2**62), st.integers(1, 4), st.integers(1, 5))
def test_a_crop_lies_inside_and_everywhere_the_same_way(key, height, width):
    found = chain({"kind": "random_crop", "size": [height, width]}).apply(PIXELS, ROWS, Draw(key))
    assert found.shape == (2, 3, height, width)
    for sample, whole in zip(found, PIXELS, strict=True):
        places = [
            (top, left)
            for top in range(5 - height)
            for left in range(6 - width)
            if torch.equal(whole[:, top : top + height, left : left + width], sample)
        ]
        assert len(places) == 1


@given(st.integers(0, 2**62), st.sampled_from(["horizontal", "vertical"]))
def test_flipping_twice_is_nothing(key, axis):
    flip = chain({"kind": "flip", "axis": axis})
    once = flip.apply(PIXELS, ROWS, Draw(key))
    assert torch.equal(flip.apply(once, ROWS, Draw(key)), PIXELS)
    sure = chain({"kind": "flip", "axis": axis, "p": 1}).apply(PIXELS, ROWS, Draw(key))
    assert torch.equal(sure, PIXELS.flip(-1 if axis == "horizontal" else -2))


@given(st.integers(0, 2**62), st.integers(1, 9), st.permutations(range(9)))
def test_a_sample_does_not_depend_on_its_batch(key, size, order):
    steps = chain(
        {"kind": "resize", "size": [6, 6]},
        {"kind": "random_crop", "size": [5, 5], "padding": 2},
        {"kind": "flip"},
        {"kind": "normalize", "mean": [0.4], "std": [0.2]},
    )
    source = torch.randint(
        0, 256, (9, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    split = Split("train", (Transformed(source, steps),), ("x",), torch.arange(9), "y")
    whole = next(batches(split, 9, device="cpu", draw=Draw(key))).inputs[0]
    made = batches(split, size, device="cpu", order=torch.tensor(order), draw=Draw(key))
    for batch in made:
        assert torch.equal(batch.inputs[0], whole[batch.targets])


def test_an_image_and_its_mask_move_alike():
    columns = {"train/inputs/0": PIXELS, "train/targets/0": PIXELS[:, 0].to(torch.int64)}
    moves = [{"kind": "random_crop", "size": [3, 3], "padding": 1}, {"kind": "flip"}]
    data = Data.model_validate({"transforms": {"image": moves, "targets/0": moves}})
    found = transformed(columns, data, ["image"])
    for key in range(20):
        inputs = found["train/inputs/0"].take(ROWS, Draw(key))
        targets = found["train/targets/0"].take(ROWS, Draw(key))
        assert torch.equal(inputs[:, 0], targets.to(torch.float32))


def refused(columns, transforms):
    with pytest.raises(DatasetInvalid) as caught:
        transformed(columns, Data.model_validate({"transforms": transforms}), ["image"])
    assert caught.value.hint
    return caught.value


def test_transforms_that_do_not_fit_are_named():
    images = {"train/inputs/0": PIXELS}
    big = [{"kind": "flip"}, {"kind": "random_crop", "size": [9, 3], "padding": 2}]
    error = refused(images, {"0": big})
    assert error.where == "recipe.data.transforms.0.1"
    assert "cuts [9, 3] out of [4, 5] with 2 zeros" in error.title
    error = refused(images, {"0": [{"kind": "normalize", "mean": [0, 0], "std": [1, 1]}]})
    assert "3 channels are there" in error.title
    error = refused({"train/inputs/0": PIXELS[:, :, 0, 0]}, {"0": [{"kind": "flip"}]})
    assert "takes images" in error.title
    error = refused(images, {"1": [{"kind": "flip"}]})
    assert error.where == "recipe.data.transforms.1"
    error = refused({"train/inputs/0": PIXELS.long()}, {"0": [{"kind": "resize", "size": [2, 2]}]})
    assert "to_float" in error.hint


def test_a_mask_left_behind_is_refused():
    columns = {"train/inputs/0": PIXELS, "train/targets/0": PIXELS[:, 0].to(torch.int64)}
    error = refused(columns, {"0": [{"kind": "flip"}]})
    assert "stay where they are" in error.title
