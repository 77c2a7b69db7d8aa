r"""Layer-adaptive magnitude: magnitudes that compare over the whole network.

Removing from a layer all weights up to u, in rising order, and keeping the rest distorts its
output by at most a factor that falls with the share of the squared norm that u has in what would
remain. Lee et al. 2021, "Layer-adaptive Sparsity for the Magnitude-based Pruning" (ICLR), equation
2, therefore score

    lamp:  s(u) = w_u^2 / sum_{v: |w_v| >= |w_u|} w_v^2      within one weight tensor

so that the largest weight of every layer scores 1. For channels the same is done to the squared
norms of the filters, :math:`q_i = \lVert W_i \rVert_2^2` in the place of :math:`w_u^2`; the scores
of coupled filters are aggregated. Equal magnitudes are taken in their order, as in sorting.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engine.scores.registry import Criterion, register


def _share_of_what_remains(squares: Tensor) -> Tensor:
    """[n] squared magnitudes to [n] scores in [0, 1]."""
    rising, order = torch.sort(squares.double(), stable=True)
    remaining = rising.flip(0).cumsum(0).flip(0)
    shares = torch.where(remaining > 0, rising / remaining, 0.0)
    return torch.empty_like(shares).scatter_(0, order, shares)


def _filters(rows: Tensor) -> Tensor:
    return _share_of_what_remains(rows.double().square().sum(dim=1))


def _elements(weight: Tensor) -> Tensor:
    return _share_of_what_remains(weight.double().square().reshape(-1)).reshape(weight.shape)


LAMP = register(Criterion("lamp", slices=_filters, elements=_elements))
