from __future__ import annotations

import torch

from engine.quantisation.straight_through import StraightThrough
from tests.engine.quantisation.table import in_quarters, quartered


def test_small_steps_add_up_behind_the_rounding():
    # scale 1: values are whole numbers
    rule = StraightThrough(in_quarters, encode=quartered, start=torch.tensor([4.0, 0.3, -1.2]))
    latents = rule.begin(torch.zeros(3), None)
    assert rule.value(latents).tolist() == [4, 0, -1]
    gradient = torch.tensor([0.0, -1.0, 0.0])
    assert rule.gradients(latents, gradient)["weight"].tolist() == gradient.tolist()
    seen = []
    for _ in range(3):
        latents["weight"] -= 0.15 * rule.gradients(latents, gradient)["weight"]
        seen.append(rule.value(latents).tolist())
    assert seen == [[4, 0, -1], [4, 1, -1], [4, 1, -1]]  # 0.45, 0.6, 0.75
    assert torch.equal(rule.encoding(latents).decode(), rule.value(latents))


def test_scales_follow_the_weight():
    rule = StraightThrough(in_quarters)
    latents = rule.begin(torch.tensor([4.0, 1.0]), None)
    latents["weight"].copy_(torch.tensor([8.0, 1.0]))
    assert rule.value(latents).tolist() == [8, 0]  # steps of 2, and 0.5 is rounded to even


def test_what_is_pruned_starts_at_zero():
    rule = StraightThrough(in_quarters, encode=quartered, start=torch.tensor([4.0, 3.0]))
    latents = rule.begin(torch.zeros(2), torch.tensor([True, False]))
    assert latents["weight"].tolist() == [4, 0]
