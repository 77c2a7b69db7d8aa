"""Masked weights stay at exactly zero under every optimiser, whatever it remembers."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from secateur.recipe import Optimizer, Penalty

from engine.masks import apply_masks
from engine.training.bit_masks import BitMasks
from engine.training.optimizer import build_optimizer, leaves_zeros
from engine.training.penalty import add_penalty

OPTIMIZERS = st.one_of(
    st.builds(
        Optimizer,
        kind=st.just("sgd"),
        lr=st.floats(1e-4, 1.0),
        momentum=st.floats(0.1, 0.99),
        nesterov=st.booleans(),
        weight_decay=st.floats(0, 1),
    ),
    st.builds(
        Optimizer,
        kind=st.sampled_from(["adam", "adamw"]),
        lr=st.floats(1e-4, 1.0),
        weight_decay=st.floats(0, 1),
    ),
)


@given(
    settings=OPTIMIZERS,
    seed=st.integers(0, 2**20),
    before=st.integers(0, 4),
    after=st.integers(1, 6),
    l1=st.floats(0.01, 1.0),
)
def test_masked_weights_stay_zero_and_others_move(settings, seed, before, after, l1):
    draw = torch.Generator().manual_seed(seed)
    weight = torch.nn.Parameter(torch.randn(4, 5, generator=draw))
    mask = torch.rand(4, 5, generator=draw) > 0.5
    mask[0, 0], mask[0, 1] = True, False
    parameters, masks, bits = {"w": weight}, {"w": mask}, BitMasks()
    optimizer = build_optimizer(settings, [weight])

    def step(held):
        weight.grad = torch.randn(4, 5, generator=draw)
        add_penalty(parameters, Penalty(l1=l1, l2=l1), [])
        bits.zero_gradients(parameters, held)
        optimizer.step()
        bits.zero_weights(parameters, held)

    for _ in range(before):  # momentum from before the pruning
        step({})
    apply_masks(parameters, masks)
    start = weight.detach().clone()
    for _ in range(after):
        step(masks)
        assert torch.count_nonzero(weight[~mask]) == 0
    assert not torch.equal(weight[mask], start[mask])


@given(settings=OPTIMIZERS, seed=st.integers(0, 2**20), steps=st.integers(1, 6), l1=st.floats(0, 1))
def test_masks_from_the_first_step_on_hold_by_the_gradients_alone(settings, seed, steps, l1):
    draw = torch.Generator().manual_seed(seed)
    weight = torch.nn.Parameter(torch.randn(4, 5, generator=draw))
    mask = torch.rand(4, 5, generator=draw) > 0.5
    parameters, masks, bits = {"w": weight}, {"w": mask}, BitMasks()
    bits.zero_weights(parameters, masks)
    optimizer = build_optimizer(settings, [weight])
    assert leaves_zeros(settings)
    for _ in range(steps):
        weight.grad = torch.randn(4, 5, generator=draw)
        add_penalty(parameters, Penalty(l1=l1, l2=1.0), [])
        bits.zero_gradients(parameters, masks)
        optimizer.step()
        assert torch.count_nonzero(weight[~mask]) == 0
