"""Values of masked untrained weights, and the learning of masks, by hand."""

from __future__ import annotations

from math import exp

import pytest
import torch
from secateur.recipe import Optimizer, Supermask

from engine.lottery.learned_masks import MaskLogits
from engine.lottery.supermask import supermasked

# Mean 0 and squares 1, 9, 9, 1: the standard deviation is the root of 5.
INITIAL = torch.tensor([[1.0, -3.0], [3.0, -1.0]])
FINAL = torch.tensor([[2.0, -1.0], [1.0, -4.0]])
DRAWN = torch.tensor([[-0.1, -0.2], [-0.3, -0.4]])
MASK = torch.tensor([[True, True], [False, False]])


def made(mask=MASK, seed=0, **options):
    return supermasked(
        "w",
        mask,
        Supermask.model_validate({"kind": "supermask"} | options),
        initial=INITIAL,
        final=FINAL,
        drawn=DRAWN,
        seed=seed,
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [[1.0, -3.0], [0.0, 0.0]]),
        ({"values": "constant"}, [[5**0.5, -(5**0.5)], [0.0, 0.0]]),
        ({"values": "reinitialised"}, [[0.1, -0.2], [0.0, 0.0]]),
        ({"removed": "init"}, [[1.0, -3.0], [3.0, -1.0]]),
        ({"removed": "init", "values": "constant"}, [[5**0.5, -(5**0.5)], [3.0, -1.0]]),
        # 3 shrank to 1; -1 grew to -4
        ({"removed": "zero_if_shrunk"}, [[1.0, -3.0], [0.0, -1.0]]),
        ({"rescale": True}, [[2.0, -6.0], [0.0, 0.0]]),
    ],
)
def test_values(options, expected):
    torch.testing.assert_close(made(**options), torch.tensor(expected))


def test_reshuffled_keeps_the_magnitudes_of_the_kept_and_the_signs_of_the_places():
    seen = {tuple(made(seed=seed, values="reshuffled").flatten().tolist()) for seed in range(20)}
    assert seen == {(1.0, -3.0, 0.0, 0.0), (3.0, -1.0, 0.0, 0.0)}


def test_random_signs_keep_the_magnitudes():
    seen = {tuple(made(seed=seed, signs="random")[0].tolist()) for seed in range(40)}
    assert seen == {(1.0, 3.0), (1.0, -3.0), (-1.0, 3.0), (-1.0, -3.0)}


def logits_of(weight, share, rescale=False, lr=0.1):
    parameter = torch.zeros_like(weight)
    options = Optimizer(lr=lr, momentum=0.0, weight_decay=0.0)
    optimizer = MaskLogits(
        {"w": parameter}, {"w": weight}, {"w": share}, options, seed=0, rescale=rescale
    )
    return parameter, optimizer


def test_the_gradient_passes_the_draw():
    parameter, optimizer = logits_of(torch.tensor([2.0, -4.0]), 0.5)
    assert optimizer.logits["w"].tolist() == [0.0, 0.0]
    parameter.grad = torch.tensor([3.0, 1.0])
    optimizer.step()
    # v - 0.1 * g * w / 4
    torch.testing.assert_close(optimizer.logits["w"], torch.tensor([-0.15, 0.1]))


def test_masks_start_with_the_share_and_keep_the_weights():
    weight = torch.full((100, 100), 2.0)
    parameter, optimizer = logits_of(weight, 0.2)
    assert float(optimizer.logits["w"][0, 0]) == pytest.approx(-1.386, abs=1e-3)  # log(1/4)
    assert set(parameter.unique().tolist()) == {0.0, 2.0}
    assert float((parameter != 0).float().mean()) == pytest.approx(0.2, abs=0.02)
    first = parameter.clone()
    parameter.grad = torch.zeros_like(weight)
    optimizer.step()
    assert not torch.equal(first, parameter)  # another draw of the same logits


def test_rescaled_masks_keep_the_sum():
    parameter, _ = logits_of(torch.ones(1000), 0.25, rescale=True)
    kept = int((parameter != 0).sum())
    assert 200 < kept < 300
    assert float(parameter.max()) == pytest.approx(1000 / kept)


def test_a_weight_that_helps_is_kept():
    # L = -w'_0 + w'_1 falls with the first weight and rises with the second.
    parameter, optimizer = logits_of(torch.ones(2), 0.5, lr=1.0)
    for _ in range(20):
        parameter.grad = torch.tensor([-1.0, 1.0])
        optimizer.step()
    chances = [1 / (1 + exp(-v)) for v in optimizer.logits["w"].tolist()]
    assert chances[0] > 0.8
    assert chances[1] < 0.2


def test_a_state_gives_the_same_draws():
    parameter, optimizer = logits_of(torch.ones(50), 0.5)
    parameter.grad = torch.randn(50)
    optimizer.step()
    again, resumed = logits_of(torch.ones(50), 0.5)
    resumed.load_state_dict(optimizer.state_dict())
    assert torch.equal(parameter, again)
    for weights, each in ((parameter, optimizer), (again, resumed)):
        weights.grad = torch.ones(50)
        each.step()
    assert torch.equal(parameter, again)
    assert torch.equal(optimizer.logits["w"], resumed.logits["w"])
