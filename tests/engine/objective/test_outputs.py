"""Which tensor of an output is meant."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from engine.errors import OutputNotFound
from engine.objective.outputs import picked, tensor_paths

A, B, C = torch.zeros(1), torch.ones(2), torch.full((3,), 2.0)


class Found(NamedTuple):
    boxes: Tensor
    scores: Tensor


class Detector(nn.Module):
    def forward(self, x: Tensor) -> Found:
        return Found(x, x + 1)


def test_keys_indices_and_fields_joined_by_dots():
    output = ({"logits": A}, [B, {"boxes": C}])
    assert picked(output, "0.logits") is A
    assert picked(output, "1.0") is B
    assert picked(output, "1.1.boxes") is C
    assert picked([A, B], "1") is B
    assert picked({2: C}, "2") is C
    assert picked({"logits": B, "x": A}, None) is B


def test_fields_of_a_named_tuple_that_torchscript_made():
    output = torch.jit.script(Detector())(A)
    assert float(picked(output, "scores")) == 1
    assert float(picked(output, "1")) == 1


@pytest.mark.parametrize("path", ["2", "1.boxes", "logits", "0", "0.logits.1", "", "-1"])
def test_a_path_that_leads_to_no_tensor_lists_all(path):
    output = ({"logits": A}, [B, {"boxes": C}])
    with pytest.raises(OutputNotFound) as caught:
        picked(output, path or "x")
    assert caught.value.where == "recipe.objective.output"
    listed = "`0.logits` float32[1], `1.0` float32[2], `1.1.boxes` float32[3]"
    assert caught.value.hint == f"the output holds {listed}"


def test_a_single_tensor_has_no_paths():
    with pytest.raises(OutputNotFound, match="is nothing") as caught:
        picked(A, "logits")
    assert "leave `output` out" in caught.value.hint
    assert list(tensor_paths(A)) == [("", A)]
