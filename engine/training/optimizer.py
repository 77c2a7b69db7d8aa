"""Optimisers and learning-rate schedules of the recipe.

Cosine decay over one run of T steps (Loshchilov & Hutter 2017, one cycle):

    lr_t = lr (1 + cos(pi t / T)) / 2,   t = 0 .. T - 1

The rate is a pure function of the step, so a resumed run needs no scheduler state.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import cos, pi

import torch
from secateur.recipe import FinetuneOptions, Optimizer
from torch import Tensor


def build_optimizer(options: Optimizer, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    """The optimiser of the recipe over these parameters."""
    if options.kind == "adamw":
        return torch.optim.AdamW(parameters, lr=options.lr, weight_decay=options.weight_decay)
    return torch.optim.SGD(
        parameters,
        lr=options.lr,
        momentum=options.momentum,
        weight_decay=options.weight_decay,
        nesterov=options.nesterov,
    )


def learning_rate(options: FinetuneOptions, step: int, steps: int) -> float:
    """The rate of step `step` (from 0) of `steps`."""
    if options.lr_schedule == "constant":
        return options.optimizer.lr
    return options.optimizer.lr * (1 + cos(pi * step / steps)) / 2


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Use this rate for the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate
