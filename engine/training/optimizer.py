"""Optimisers and learning-rate schedules of the recipe.

Over one run of T steps, t = 0 .. T - 1, the first W of them warm-up:

    warm-up   lr_t = lr (t + 1) / W                     t < W    (Goyal et al. 2017, section 2.2)
    cosine    lr_t = lr (1 + cos(pi (t - W) / (T - W))) / 2      (Loshchilov & Hutter 2017, 1 cycle)
    step      lr_t = lr gamma^floor(t / S)              S steps of `lr_step_epochs` epochs
    constant  lr_t = lr

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
    """The rate of step `step` (from 0) of `steps`, which fill the epochs of the options evenly."""
    full, per_epoch = options.optimizer.lr, steps / options.epochs
    warm = round(options.warmup_epochs * per_epoch)
    if step < warm:
        return full * (step + 1) / warm
    if options.lr_schedule == "cosine":
        return full * (1 + cos(pi * (step - warm) / (steps - warm))) / 2
    if options.lr_schedule == "step":
        decays: int = int(step / per_epoch) // options.lr_step_epochs
        return full * options.lr_step_factor**decays
    return full


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Use this rate for the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def forget(optimizer: torch.optim.Optimizer, weight: Tensor, where: Tensor) -> None:
    """Zero what the optimiser gathered (momentum, moments) for some elements of a weight."""
    for kept in optimizer.state.get(weight, {}).values():
        if isinstance(kept, Tensor) and kept.shape == weight.shape:
            kept.masked_fill_(where, 0.0)
