"""The factor follows torch's own scaler, and its rule is as derived."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.training.loss_scale import START, LossScale


def gradients(*values: float) -> list[torch.Tensor]:
    made = []
    for value in values:
        weight = torch.zeros(2)
        weight.grad = torch.tensor([value, 1.0])
        made.append(weight)
    return made


def test_finite_gradients_are_divided():
    scale = LossScale()
    held = gradients(65_536.0 * 3, 65_536.0 * 5)
    assert scale.unscale(held)
    assert [float(one.grad[0]) for one in held] == [3.0, 5.0]
    assert scale.value == START


def test_a_step_that_is_not_finite_halves_the_factor_and_leaves_no_infinity():
    scale = LossScale()
    held = gradients(float("inf"), 65_536.0)
    assert not scale.unscale(held)
    assert scale.value == START / 2
    assert scale.skipped == 1
    assert [one.grad.tolist() for one in held] == [[0.0, 1 / 65_536], [1.0, 1 / 65_536]]
    assert not scale.unscale(gradients(float("nan")))
    assert scale.memory() == {"scale": START / 4, "finite": 0, "skipped": 2}


def test_two_thousand_finite_steps_double_it():
    scale = LossScale()
    scale.recall({"scale": 8.0, "finite": 1998, "skipped": 3})
    scale.unscale(gradients(1.0))
    assert scale.value == 8.0
    scale.unscale(gradients(1.0))
    assert scale.memory() == {"scale": 16.0, "finite": 0, "skipped": 3}


def test_parameters_without_gradients_are_left_out():
    assert LossScale().unscale([torch.zeros(2)])


@settings(max_examples=25)
@given(st.lists(st.booleans(), min_size=1, max_size=12), st.integers(1990, 1999))
def test_it_takes_and_leaves_the_steps_that_torch_does(finite, begun):
    ours = LossScale()
    ours.recall({"scale": START, "finite": begun, "skipped": 0})
    reference = torch.amp.GradScaler("cpu")
    reference.load_state_dict(reference.state_dict() | {"_growth_tracker": begun})
    weight = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=1.0)
    for good in finite:
        reference.scale(torch.ones(()))  # makes its tensors
        weight.grad = torch.tensor([1.0 if good else float("inf"), 2.0])
        before = weight.detach().clone()
        reference.step(optimizer)
        reference.update()
        taken = not torch.equal(before, weight.detach())
        assert ours.unscale(gradients(1.0 if good else float("inf"))) == taken == good
        assert ours.value == reference.get_scale()
