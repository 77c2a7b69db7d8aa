r"""What range of a place's values is kept, from the values that calibration shows.

- `min_max`: all of it, :math:`[\min x, \max x]`. Nothing is cut off, and one outlier widens every
  step.
- `percentile` p: a share :math:`(100 - p) / 2` percent of the values is cut off at either end
  (Wu et al. 2020, "Integer Quantization for Deep Learning Inference: Principles and Empirical
  Evaluation", section 4).
- `histogram`: the range :math:`[a, b]` inside for which the squared error, of rounding and of what
  is cut off, is smallest:

  .. math:: \sum_x \begin{cases} s^2 / 12 & a \le x \le b \\ d(x, [a, b])^2 & \text{otherwise}
     \end{cases}, \qquad s = (b - a) / 127

  Values inside a step are taken to be spread evenly, which makes :math:`s^2 / 12` of each.

Both of the latter read a histogram whose bins are as wide as a power of two and begin at multiples
of it. When values come that would need too many bins, neighbours are merged in pairs: all counts
stay exact, in whatever order the batches come.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor

from engine.quantisation.int8.ranges import STEPS, ActivationRange

Observer = Literal["min_max", "histogram", "percentile"]

_BINS = 4096
"""At most; after merging there are at least half as many over the range of the values."""
_CANDIDATES = 48
"""Ends that are tried at either side."""


class Watch(ABC):
    """The values of one place."""

    def __init__(self) -> None:
        self._low = math.inf
        self._high = -math.inf
        self._dims: set[int] = set()

    def see(self, values: Tensor) -> None:
        """Take in values; float32, finite, of any shape."""
        self._dims.add(values.dim())
        if values.numel():
            low, high = torch.aminmax(values)
            self._low, self._high = min(self._low, float(low)), max(self._high, float(high))
            self._count(values)

    def range(self) -> ActivationRange | None:
        """The range that is kept; None where no value was seen."""
        if self._low > self._high:
            return None
        dims = next(iter(self._dims)) if len(self._dims) == 1 else None
        return ActivationRange.of(*self._ends(), dims)

    @abstractmethod
    def _count(self, values: Tensor) -> None: ...

    @abstractmethod
    def _ends(self) -> tuple[float, float]: ...


class MinMax(Watch):
    """Keeps everything."""

    def _count(self, values: Tensor) -> None:
        del values

    def _ends(self) -> tuple[float, float]:
        return self._low, self._high


class _Histogram(Watch):
    def __init__(self) -> None:
        super().__init__()
        self._width = 0.0
        self._first = 0
        self._counts = torch.zeros(0, dtype=torch.int64)

    def _count(self, values: Tensor) -> None:
        span = self._high - self._low
        if self._width == 0.0:
            self._width = 2.0 ** math.ceil(math.log2(max(span, 1e-30) / (_BINS // 2)))
            self._first = math.floor(self._low / self._width)
        while self._last() - math.floor(self._low / self._width) >= _BINS:
            self._merge()
        bins = (values.detach().flatten().double() / self._width).floor().long()
        first = min(self._first, int(bins.min()))
        size = max(self._first + len(self._counts), int(bins.max()) + 1) - first
        counts = torch.bincount(bins - first, minlength=size)
        counts[self._first - first : self._first - first + len(self._counts)] += self._counts
        self._first, self._counts = first, counts

    def _last(self) -> int:
        return math.floor(self._high / self._width)

    def _merge(self) -> None:
        """Bins of twice the width: pairs that begin at an even multiple."""
        self._width *= 2
        if len(self._counts):
            lead = self._first % 2
            padded = torch.nn.functional.pad(self._counts, (lead, (lead + len(self._counts)) % 2))
            self._counts = padded.reshape(-1, 2).sum(1)
        self._first = self._first // 2

    def _edges(self) -> Tensor:
        """Lower edges of the bins, and the upper edge of the last."""
        return (self._first + torch.arange(len(self._counts) + 1, dtype=torch.float64)) * (
            self._width
        )


class Percentile(_Histogram):
    """Cuts a share of the values off at either end.

    Args:
        percentile: of the values that are kept, above 50 and at most 100.
    """

    def __init__(self, percentile: float) -> None:
        super().__init__()
        self._percentile = percentile

    def _ends(self) -> tuple[float, float]:
        cut = (100.0 - self._percentile) / 200.0 * float(self._counts.sum())
        below = self._counts.cumsum(0).double()
        edges = self._edges()
        low = float(edges[int((below > cut).nonzero()[0])])
        above = below[-1] - below
        high = float(edges[int((above <= cut).nonzero()[0]) + 1])
        return max(low, self._low), min(high, self._high)


class LeastSquares(_Histogram):
    """Keeps the range whose squared error is smallest."""

    def _ends(self) -> tuple[float, float]:
        edges = self._edges()
        middles = (edges[:-1] + edges[1:]) / 2
        counts = self._counts.double()
        shares = torch.linspace(0.05, 1.0, _CANDIDATES, dtype=torch.float64)
        lows = min(self._low, 0.0) * shares if self._low < 0 else torch.zeros(1).double()
        highs = max(self._high, 0.0) * shares if self._high > 0 else torch.zeros(1).double()
        under = ((lows[:, None] - middles).clamp(min=0) ** 2) @ counts
        over = ((middles - highs[:, None]).clamp(min=0) ** 2) @ counts
        outside = _below(middles, counts, lows)[:, None] + _above(middles, counts, highs)[None]
        step = (highs[None] - lows[:, None]) / STEPS
        inside = (counts.sum() - outside) * step**2 / 12
        best = int((under[:, None] + over[None] + inside).argmin())
        return float(lows[best // len(highs)]), float(highs[best % len(highs)])


def _below(middles: Tensor, counts: Tensor, lows: Tensor) -> Tensor:
    return (middles < lows[:, None]).double() @ counts


def _above(middles: Tensor, counts: Tensor, highs: Tensor) -> Tensor:
    return (middles > highs[:, None]).double() @ counts


def watch(observer: Observer, percentile: float) -> Watch:
    """A new observer of a place."""
    if observer == "percentile":
        return Percentile(percentile)
    return MinMax() if observer == "min_max" else LeastSquares()
