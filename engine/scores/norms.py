"""Magnitude criteria: small weights contribute little.

For a convolution y_j = sum_i K_ji * x_i, the output channel j is bounded by
|y_j| <= sum_i ||K_ji||_1 max|x_i|, so with inputs of like scale the norm of the filter K_j bounds
what its channel can contribute. Li et al. 2017, "Pruning Filters for Efficient ConvNets", rank
filters by

    l1_norm:  s_j = sum |w|      over the elements of filter j
    l2_norm:  s_j = sqrt(sum w^2)

For single weights both reduce to the magnitude |w| (Han et al. 2015); l2 squares and takes the
root of one term, so the two rank elements alike.
"""

from __future__ import annotations

from torch import Tensor

from engine.scores.registry import Criterion, register


def _l1(rows: Tensor) -> Tensor:
    return rows.abs().sum(dim=1)


def _l2(rows: Tensor) -> Tensor:
    return rows.square().sum(dim=1).sqrt()


def _magnitude(weight: Tensor) -> Tensor:
    return weight.abs()


L1_NORM = register(Criterion("l1_norm", slices=_l1, elements=_magnitude))
L2_NORM = register(Criterion("l2_norm", slices=_l2, elements=_magnitude))
