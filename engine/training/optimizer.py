"""Optimisers and learning-rate schedules of the recipe.

Over one run of T steps, t = 0 .. T - 1, the first W of them warm-up:

    warm-up   lr_t = lr (t + 1) / W                     t < W    (Goyal et al. 2017, section 2.2)
    cosine    lr_t = lr (1 + cos(pi (t - W) / (T - W))) / 2      (Loshchilov & Hutter 2017, 1 cycle)
    step      lr_t = lr gamma^floor(t / S)              S steps of `lr_step_epochs` epochs
    constant  lr_t = lr

The rate is a pure function of the step, so a resumed run needs no scheduler state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import cos, pi

import torch
from secateur.recipe import FinetuneOptions, Optimizer
from torch import Tensor

from engine.errors import TrainingRuleUnmet
from engine.training.blocked_sgd import BlockedSGD
from engine.training.dense import is_dense


def build_optimizer(options: Optimizer, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    """The optimiser of the recipe over these parameters.

    With gradient g and decay d: `sgd` and `adam` follow g + d w (L2; for Adam as in Kingma & Ba
    2015), `adamw` moves w by -lr d w besides (Loshchilov & Hutter 2019).

    Both Adams take one kernel for the whole update where they can: it takes less than half of the
    time, and with masks a seventh, for the root of the second moment, as a call of its own, is slow
    where these are zero. On a CPU `sgd` goes from piece to piece of the weights, see
    `engine.training.blocked_sgd`.
    """
    moved = list(parameters)
    if options.kind != "sgd":
        kind = torch.optim.Adam if options.kind == "adam" else torch.optim.AdamW
        # That kernel goes through memory from end to end, whatever the strides.
        fused = all(is_dense(parameter) for parameter in moved)
        return kind(moved, lr=options.rate, weight_decay=options.weight_decay, fused=fused)
    on_cpu = all(parameter.device.type == "cpu" for parameter in moved)
    plain = BlockedSGD if on_cpu else torch.optim.SGD
    return plain(
        moved,
        lr=options.rate,
        momentum=options.momentum,
        weight_decay=options.weight_decay,
        nesterov=options.nesterov,
    )


def leaves_zeros(options: Optimizer) -> bool:
    """Whether weights of zero without gradient and history stay zero: updates by element do."""
    return options.kind in ("sgd", "adam", "adamw")


def require_range(options: Optimizer, parameters: Mapping[str, Tensor], *, field: str) -> None:
    """Refuse second moments in a type that cannot hold them.

    Moments are of the type of their weight. The smallest number of float16 is 6e-8: epsilon (1e-8)
    is zero there, and so is the square of a gradient below 2e-4, so steps are divided by zero. A
    larger epsilon would not bring those squares back: it would be another optimiser.

    Raises:
        TrainingRuleUnmet: Adam or AdamW on float16 weights.
    """
    if options.kind == "sgd":
        return
    for name, parameter in parameters.items():
        if parameter.dtype == torch.float16:
            raise TrainingRuleUnmet(
                f"`{options.kind}` squares gradients, which leave the range of float16, the type "
                f"of `{name}`",
                hint="use `kind: sgd`, or upload the model in float32 or bfloat16",
                where=f"{field}.optimizer.kind",
            )


def learning_rate(options: FinetuneOptions, step: int, steps: int) -> float:
    """The rate of step `step` (from 0) of `steps`, which fill the epochs of the options evenly."""
    full, per_epoch = options.optimizer.rate, steps / options.epochs
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
