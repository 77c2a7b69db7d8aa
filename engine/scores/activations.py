r"""Criteria of what channels give on data, after their nonlinearity.

With :math:`o_{n,p}` the activation of a channel for sample n at position p
(`engine.evidence.activations` says where it is taken),

    apoz:             s = 1 - APoZ,   APoZ = share of (n, p) with o = 0
    mean_activation:  s = mean over (n, p) of |o|

The average percentage of zeros is Hu et al. 2016, "Network Trimming" (arXiv:1607.03250): channels
that are mostly zero go first. The mean absolute activation is Tan & Motani 2020, "DropNet" (ICML).
A smooth activation (gelu, silu) is never exactly zero: APoZ says nothing there.
"""

from __future__ import annotations

from torch import Tensor

from engine.scores.registry import Criterion, register

_UNSEEN = "no activation of these channels ran on the samples"


def _is_not_zero(activation: Tensor) -> Tensor:
    return activation != 0


def _size(activation: Tensor) -> Tensor:
    return activation.abs()


APOZ = register(Criterion("apoz", activations=_is_not_zero, lacking=_UNSEEN))
MEAN_ACTIVATION = register(Criterion("mean_activation", activations=_size, lacking=_UNSEEN))
