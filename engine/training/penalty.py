"""Penalties on weights, added to the gradient.

With loss L, strengths a (L1), b (L2), s (scales), weights w of two or more dimensions and BatchNorm
scales g, what is minimised is

    L + a sum |w| + (b / 2) sum w^2 + s sum |g|

and the gradient gains a sign(w) + b w for weights and s sign(g) for scales, where sign(0) = 0 is
the subgradient that leaves a zero alone. The L2 term equals weight decay of SGD with the same
number, on weights alone: biases and normalisation scales are spared (Goodfellow, Bengio &
Courville 2016, section 7.1). Under AdamW the gradient of a penalty passes through the moments, the
decay does not. L1 and L2 while pruning: Han et al. 2015, section 3.1; L1 on scales: Liu et al.
2017, Network Slimming, equation 1.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from secateur.recipe import Penalty
from torch import Tensor

from engine.errors import TrainingRuleUnmet
from engine.torchscript.batch_norms import batch_norms
from engine.torchscript.program import Program, memory_of


def norm_scales(program: Program) -> list[str]:
    """Names of the trainable BatchNorm scales (gammas) that forward reads, in order."""
    read = {norm.scale for norm in batch_norms(program.block)}
    held = program.attributes()
    memory = {memory_of(held[name]) for name in read if name in held}
    return [
        name for name, parameter in program.parameters().items() if memory_of(parameter) in memory
    ]


def require_norm_scales(program: Program, penalty: Penalty | None, *, field: str) -> list[str]:
    """The scales that a penalty is on; none without one.

    Raises:
        TrainingRuleUnmet: `bn_scale` is asked for and no BatchNorm has a scale.
    """
    if penalty is None or penalty.bn_scale == 0:
        return []
    names = norm_scales(program)
    if not names:
        raise TrainingRuleUnmet(
            "`bn_scale` penalises the scales of BatchNorm, and the model has none",
            hint="use a model with BatchNorm layers that were not folded into convolutions, or "
            "penalise weights with `l1`",
            where=f"{field}.penalty.bn_scale",
        )
    return names


@torch.no_grad()
def add_penalty(
    parameters: Mapping[str, Tensor], penalty: Penalty | None, scales: Collection[str]
) -> None:
    """Add the penalty's gradient to the gradients in place; parameters without one are left out."""
    if penalty is None:
        return
    for name, weight in parameters.items():
        if weight.grad is None:
            continue
        if weight.dim() >= 2 and penalty.l1:
            weight.grad.add_(weight.sign(), alpha=penalty.l1)
        if weight.dim() >= 2 and penalty.l2:
            weight.grad.add_(weight, alpha=penalty.l2)
        if name in scales and penalty.bn_scale:
            weight.grad.add_(weight.sign(), alpha=penalty.bn_scale)
