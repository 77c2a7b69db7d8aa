r"""Filter pruning via the geometric median: filters that others can stand in for go first.

The geometric median of the filters :math:`W_1 \dots W_n` of a layer is the point with the least
sum of distances to all of them. A filter near it carries what the others carry too. He et al.
2019, "Filter Pruning via Geometric Median for Deep Convolutional Neural Networks Acceleration"
(CVPR), equation 7, rank filters by

    geometric_median:  s_i = sum_j ||W_i - W_j||_2      over all filters j of the layer

Distances are taken in float64 and block by block, so that a layer of many filters needs memory
for some of its rows only. A single weight has no such neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engine.scores.registry import Criterion, register

_AT_ONCE = 1 << 24
"""Distances in memory at a time: 128 MiB."""


def _distances(rows: Tensor) -> Tensor:
    exact = rows.double()
    block = max(_AT_ONCE // max(len(exact), 1), 1)
    return torch.cat(
        [
            torch.cdist(exact[start : start + block], exact).sum(dim=1)
            for start in range(0, len(exact), block)
        ]
    )


GEOMETRIC_MEDIAN = register(Criterion("geometric_median", slices=_distances))
