"""Masks in bits do what filling does, for every type and value."""

from __future__ import annotations

import pytest
import torch

from engine.training.bit_masks import BitMasks

KINDS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("kind", KINDS)
def test_what_stays_keeps_its_bits_and_what_goes_is_zero(kind):
    values = [1.5, -2.0, torch.inf, -torch.inf, torch.nan, -0.0, 1e-3, 3.0]
    weight = torch.nn.Parameter(torch.tensor(values, dtype=kind).reshape(2, 4))
    weight.grad = weight.detach().clone()
    mask = torch.tensor([True, False, False, True, False, False, True, True]).reshape(2, 4)
    expected = weight.detach().clone().masked_fill_(~mask, 0.0)
    bits = BitMasks()
    bits.zero_weights({"w": weight}, {"w": mask})
    bits.zero_gradients({"w": weight}, {"w": mask})
    width = {2: torch.int16, 4: torch.int32, 8: torch.int64}[weight.element_size()]
    for got in (weight.detach(), weight.grad):
        assert torch.equal(got.view(width), expected.view(width))


def test_channels_last_weights_are_masked_at_the_same_places():
    weight = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    mask = torch.rand(4, 3, 2, 2) > 0.5
    expected = weight.clone().masked_fill_(~mask, 0.0)
    BitMasks().zero_weights({"w": weight}, {"w": mask})
    assert torch.equal(weight, expected)


def test_masks_that_change_are_taken_up():
    weight, bits = torch.ones(3), BitMasks()
    for kept in ([True, True, False], [True, False, False]):
        mask = torch.tensor(kept)
        bits.zero_weights({"w": weight}, {"w": mask})
        assert torch.equal(weight != 0, mask)
    bits.zero_gradients({"w": weight}, {"w": torch.tensor([False] * 3)})  # there is none
