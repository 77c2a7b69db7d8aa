r"""Erdős-Rényi densities: how many units each layer keeps so that wide layers are the sparsest.

A bipartite Erdős-Rényi graph between :math:`n_{in}` and :math:`n_{out}` neurons has each of its
connections with probability :math:`\epsilon (n_{in} + n_{out}) / (n_{in} n_{out})`, which makes
the number of connections linear in the number of neurons (Mocanu et al. 2018, "Scalable training
of artificial neural networks with adaptive sparse connectivity"). For a convolution the kernel
counts along (Evci et al. 2020, "Rigging the Lottery", ERK):

.. math:: d_l = \min(1, \epsilon r_l), \qquad
    r_l = \frac{n_{in} + n_{out} + k_h + k_w}{n_{in} n_{out} k_h k_w}

The plain form leaves the kernel out, :math:`r_l = (n_{in} + n_{out}) / (n_{in} n_{out})`.

One :math:`\epsilon` serves all layers and is what makes the total right,
:math:`\sum_l d_l u_l = K` for :math:`u_l` units in layer l and K units to keep. Layers whose
density would pass 1 stay whole and the rest is spread over the others, again and again until none
does. The numbers kept are then made whole by the largest remainder, so that they add up to K
exactly, and every layer keeps one unit.

Units are weights, or channels: a group of coupled channels takes r from all the weights that
produce it, the sum of their dimensions over the sum of their elements.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def kernel_ratio(shapes: Sequence[Sequence[int]]) -> float:
    """The r of a layer, or of layers that share their channels: sum of dimensions / elements."""
    return float(sum(map(sum, shapes)) / sum(int(np.prod(shape)) for shape in shapes))


def plain_ratio(shapes: Sequence[Sequence[int]]) -> float:
    """The same without kernels: of outputs and inputs alone."""
    return kernel_ratio([shape[:2] for shape in shapes])


def kept_by_ratio(ratios: Sequence[float], units: Sequence[int], keep: int) -> list[int]:
    """Units each layer keeps.

    Args:
        ratios: r of each layer, above 0.
        units: how many it has.
        keep: how many are kept in all; never fewer than one of each layer are.
    """
    sizes = np.asarray(units, dtype=np.int64)
    weight = np.asarray(ratios, dtype=np.float64) * sizes
    keep = min(max(keep, len(sizes)), int(sizes.sum()))
    wanted = _wanted(weight, sizes.astype(np.float64), float(keep))
    kept = np.minimum(np.maximum(np.floor(wanted + 1e-9).astype(np.int64), 1), sizes)
    while (short := keep - int(kept.sum())) != 0:
        # What is nearest to its share when given one more, or least hurt when it loses one.
        over = kept - wanted
        over[kept == sizes if short > 0 else kept == 1] = np.inf if short > 0 else -np.inf
        kept[int(np.argmin(over) if short > 0 else np.argmax(over))] += 1 if short > 0 else -1
    return [int(count) for count in kept]


def _wanted(
    weight: NDArray[np.float64], sizes: NDArray[np.float64], keep: float
) -> NDArray[np.float64]:
    whole = np.zeros(len(sizes), dtype=bool)
    while True:
        left = keep - sizes[whole].sum()
        wanted = np.where(whole, sizes, 0.0)
        if whole.all():
            return wanted
        wanted[~whole] = weight[~whole] * left / weight[~whole].sum()
        past = ~whole & (wanted > sizes)
        if not past.any():
            return wanted
        whole |= past
