r"""Ratios by layer from a sensitivity scan: every layer is pruned until it hurts equally.

The scan prunes one layer at a time, at a few ratios r, and measures the drift
:math:`D_l(r) = \lVert y_{l,r} - y \rVert / \lVert y \rVert` of the outputs (Li et al. 2017, section
3.2, and Han et al. 2015, figure 6, scan accuracy in this way). Between the ratios the curve is
linear, from :math:`D_l(0) = 0`; past the last one it goes on at its last slope; and it is made
rising, for a drift that sinks with more pruning is chance.

To remove K units in all, minimise the largest drift:

.. math:: \min_{n} \max_l D_l(n_l / u_l) \quad \text{with} \quad \sum_l n_l = K,\; n_l < u_l

Water-filling solves it: for a level :math:`\lambda` every layer gives as much as keeps it at or
below, :math:`n_l(\lambda) = \max \{n : D_l(n / u_l) \le \lambda\}`, and the sum rises with
:math:`\lambda`. The greedy form (take the next unit where the drift after it is least) walks
through the same levels. Here the level is found by bisection, and what is short of K at the level
below is taken from the layers that give more at the level above, in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

RATIOS = (0.25, 0.5, 0.75)
"""Shares of a layer that the scan removes."""

Curves = dict[str, list[float]]
"""By layer, the drift at each ratio."""


def scan(layers: Sequence[str], measure: Callable[[str, float], float]) -> Curves:
    """The drift of every layer at every ratio.

    Args:
        layers: their names.
        measure: the drift of the outputs when this share of this layer alone is gone, 0 or more.
    """
    return {layer: [measure(layer, ratio) for ratio in RATIOS] for layer in layers}


def equal_drift(curves: Curves, units: Sequence[int], total: int) -> dict[str, int]:
    """How many units of each layer go, so that the largest drift is least.

    Args:
        curves: from a scan.
        units: of each layer, in the order of `curves`.
        total: units to remove; one of each layer stays.
    """
    sizes = np.asarray(units, dtype=np.int64)
    total = min(total, int((sizes - 1).sum()))
    known = [_rising(curve) for curve in curves.values()]
    drifts = [
        _drift(curve, np.arange(size, dtype=np.float64) / size)
        for curve, size in zip(known, units, strict=True)
    ]
    # Half steps below and above every level there is: -1 gives nothing, the highest everything.
    levels = np.unique(np.concatenate([own[1:] for own in drifts] or [np.empty(0)]))
    low, high = -1, len(levels) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _at(drifts, levels[middle]).sum() <= total else (low, middle)
    gone = _at(drifts, levels[low]) if low >= 0 else np.zeros_like(sizes)
    more = _at(drifts, levels[high]) if len(levels) else gone
    for layer in range(len(sizes)):
        gone[layer] += min(int(more[layer] - gone[layer]), total - int(gone.sum()))
    return dict(zip(curves, (int(count) for count in gone), strict=True))


def _at(drifts: Sequence[NDArray[np.float64]], level: float) -> NDArray[np.int64]:
    """Units each layer gives at a level; its first entry stands for none."""
    return np.array([np.searchsorted(own, level, side="right") - 1 for own in drifts], np.int64)


def _rising(curve: Sequence[float]) -> NDArray[np.float64]:
    finite = [drift if np.isfinite(drift) else np.finfo(np.float64).max / 8 for drift in curve]
    return np.maximum.accumulate(np.array([0.0, *finite]))


def _drift(curve: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    at = np.array([0.0, *RATIOS])
    slope = (curve[-1] - curve[-2]) / (at[-1] - at[-2])
    past = curve[-1] + slope * (shares - at[-1])
    return np.where(shares <= at[-1], np.interp(shares, at, curve), past)
