from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from secateur.recipe_data import Data, Tokens

from engine.data.opening import open_dataset
from engine.data.token_windows import cut_tokens
from engine.errors import DatasetInvalid

STREAM = torch.arange(23, dtype=torch.int32) * 2


def opened(path, **tokens):
    return open_dataset(path, ["ids"], data=Data.model_validate({"tokens": tokens or None}))


def test_windows_and_the_tokens_after_them(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"train/tokens": STREAM, "unlabelled/tokens": STREAM + 0}, path)
    dataset = opened(path, window=4, vocabulary=45)
    # 23 tokens: windows begin at 0, 4, 8, 12, 16; the one at 20 has no token after it
    assert dataset.train.samples == 5
    (inputs,), targets, _ = dataset.train.rows(torch.tensor([4, 0]))
    assert inputs.tolist() == [[32, 34, 36, 38], [0, 2, 4, 6]]
    assert targets.tolist() == [[34, 36, 38, 40], [2, 4, 6, 8]]
    assert inputs.dtype == targets.dtype == torch.int64
    assert dataset.unlabelled.targets is None


def test_two_byte_tokens_of_an_npz(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, **{"train/tokens": np.array([1, 65535, 3, 4], np.uint16)})
    assert opened(path, window=3).train.span(0, 1)[0][0].tolist() == [[1, 65535, 3]]


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 12))
def test_every_window_lies_inside_and_one_more_would_not(length, window, stride):
    stream = torch.arange(length)
    tokens = Tokens(window=window, stride=stride)
    if length < window + 1:
        with pytest.raises(DatasetInvalid, match="need"):
            cut_tokens({"train/tokens": stream}, tokens)
        return
    columns = cut_tokens({"train/tokens": stream}, tokens)
    inputs, targets = columns["train/inputs/0"], columns["train/targets/0"]
    rows = torch.arange(inputs.samples)
    assert torch.equal(inputs.take(rows) + 1, targets.take(rows))
    assert torch.equal(inputs.take(rows)[:, 0], rows * stride)
    assert inputs.samples * stride + window + 1 > length


@pytest.mark.parametrize(
    ("stream", "tokens", "where", "says"),
    [
        (STREAM, {}, "recipe.data.tokens", "how long a sample is"),
        (STREAM, {"window": 23}, "recipe.data.tokens.window", "has 23 tokens"),
        (STREAM, {"window": 4, "vocabulary": 44}, "train/tokens", "token 44 at position 22"),
        (-STREAM, {"window": 4}, "train/tokens", "token -2 at position 1"),
        (STREAM.double(), {"window": 4}, "train/tokens", "float64"),
        (STREAM.reshape(1, -1), {"window": 4}, "train/tokens", "shape [1, 23]"),
    ],
)
def test_streams_that_are_none(tmp_path, stream, tokens, where, says):
    path = tmp_path / "a.safetensors"
    save_file({"train/tokens": stream}, path)
    with pytest.raises(DatasetInvalid) as caught:
        opened(path, **tokens)
    assert caught.value.where == where
    assert says in caught.value.title
