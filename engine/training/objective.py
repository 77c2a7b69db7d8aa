"""The loss that training minimises, and the count of right answers.

Cross-entropy with label smoothing e (Szegedy et al. 2016) against class y of K:

    L = -(1 - e) log p_y - (e / K) sum_k log p_k
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from engine.data.splits import Targets


def class_indices(targets: Targets[Tensor]) -> Tensor:
    """The one target tensor of classification, in the type that cross-entropy takes."""
    if not isinstance(targets, Tensor):
        raise ValueError("cross-entropy takes one tensor of targets; `check_split` refuses others")
    return targets.to(torch.int64)


def cross_entropy(
    logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0, total: bool = False
) -> Tensor:
    """Mean (or total) over all targets; logits [samples, classes, ...] in any float type."""
    # Half types lose the small differences that the logarithm is about.
    return functional.cross_entropy(
        logits.float(),
        targets,
        label_smoothing=label_smoothing,
        reduction="sum" if total else "mean",
    )


def correct(logits: Tensor, targets: Tensor) -> Tensor:
    """How many targets have the highest score, as a tensor on the device."""
    return (logits.argmax(dim=1) == targets).sum()
