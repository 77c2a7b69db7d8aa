"""Mask criteria that compare initial and final weights.

Zhou et al. 2019, "Deconstructing Lottery Tickets: Zeros, Signs, and the Supermask" (NeurIPS),
section 2. For the initial weight w_i and the final (trained) weight w_f, with the paper's alpha
at 1:

    large_final                  |w_f|
    small_final                 -|w_f|
    large_init                   |w_i|
    small_init                  -|w_i|
    large_init_large_final       min(|w_f|, |w_i|)
    small_init_small_final      -max(|w_f|, |w_i|)
    magnitude_increase           |w_f| - |w_i|
    init_movement                |w_f - w_i|
    large_final_same_sign        max(0, w_i w_f / |w_i|)

The highest scores stay. The last one is the paper's criterion for supermasks: a weight that changed
its sign is worth nothing where the initial value is used.
"""

from __future__ import annotations

import torch
from secateur.recipe import Normalize
from torch import Tensor

from engine.scores.registry import Criterion, register


def ticket_scores(
    initial: Tensor, final: Tensor, criterion: Criterion, *, normalize: Normalize
) -> Tensor:
    """A score for every element, on the CPU, in float64.

    Args:
        initial: weights of the rewinding point.
        final: trained weights of the same shape.
        criterion: one that compares the two.
        normalize: by the mean or maximum of the tensor's absolute scores; these may be negative.
    """
    if criterion.of_tickets is None:
        raise TypeError(f"criterion `{criterion.name}` does not compare weights with initial ones")
    scores = criterion.of_tickets(initial.detach().double().cpu(), final.detach().double().cpu())
    if normalize != "none":
        scale = scores.abs().mean() if normalize == "mean" else scores.abs().max()
        if bool(scale > 0):
            scores = scores / scale
    return scores


def _large_final(_: Tensor, final: Tensor) -> Tensor:
    return final.abs()


def _small_final(_: Tensor, final: Tensor) -> Tensor:
    return -final.abs()


def _large_init(initial: Tensor, _: Tensor) -> Tensor:
    return initial.abs()


def _small_init(initial: Tensor, _: Tensor) -> Tensor:
    return -initial.abs()


def _large_both(initial: Tensor, final: Tensor) -> Tensor:
    return torch.minimum(final.abs(), initial.abs())


def _small_both(initial: Tensor, final: Tensor) -> Tensor:
    return -torch.maximum(final.abs(), initial.abs())


def _magnitude_increase(initial: Tensor, final: Tensor) -> Tensor:
    return final.abs() - initial.abs()


def _init_movement(initial: Tensor, final: Tensor) -> Tensor:
    return (final - initial).abs()


def _same_sign(initial: Tensor, final: Tensor) -> Tensor:
    return (final * initial.sign()).clamp(min=0)


for _name, _score in {
    "large_final": _large_final,
    "small_final": _small_final,
    "large_init": _large_init,
    "small_init": _small_init,
    "large_init_large_final": _large_both,
    "small_init_small_final": _small_both,
    "magnitude_increase": _magnitude_increase,
    "init_movement": _init_movement,
    "large_final_same_sign": _same_sign,
}.items():
    register(Criterion(_name, of_tickets=_score))
