r"""Network slimming: the scale of BatchNorm says how much of a channel is let through.

BatchNorm gives :math:`\gamma_c \hat x_c + \beta_c` with :math:`\hat x_c` of unit variance, so

    bn_scale:  s_c = |gamma_c|

is the standard deviation of channel c after it (Liu et al. 2017, "Learning Efficient Convolutional
Networks through Network Slimming", ICCV, which trains with an L1 penalty on gamma first). Where
several layers share a channel, the scales of all their BatchNorms are aggregated. A channel
without BatchNorm has no score and stays.
"""

from __future__ import annotations

from torch import Tensor

from engine.scores.registry import Criterion, register
from engine.tape import Tape, TensorValue

_BATCH_NORMS = frozenset(
    f"aten::{name}"
    for name in (
        "batch_norm", "native_batch_norm", "_native_batch_norm_legit",
        "_native_batch_norm_legit_no_training", "cudnn_batch_norm", "miopen_batch_norm",
    )
)  # fmt: skip


def _scales(tape: Tape) -> set[str]:
    """The names of all gammas that ran."""
    gammas = (step.argument("weight") for step in tape.steps if step.kind in _BATCH_NORMS)
    return {gamma.name for gamma in gammas if isinstance(gamma, TensorValue) and gamma.name}


def _absolute(rows: Tensor) -> Tensor:
    return rows.abs().sum(dim=1)


BN_SCALE = register(
    Criterion(
        "bn_scale",
        slices=_absolute,
        tensors=_scales,
        lacking="no BatchNorm with a scale follows these channels, so `bn_scale` cannot judge them",
        remedy="use another criterion, such as `l1_norm`: `bn_scale` reads the gammas of BatchNorm "
        "(LayerNorm and fused BatchNorm have none)",
    )
)
