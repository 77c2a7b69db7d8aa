"""Weight sharing: the weights of a layer in few clusters, one value for each (Han et al. 2016).

For weights w_1 .. w_n and k centroids c_1 .. c_k, k-means looks for

    min over c of  sum_i (w_i - c_a(i))^2,      a(i) = the nearest centroid of w_i,

by Lloyd's two steps in turn (nearest centroids, then means of the members), of which neither makes
the sum larger. Where it ends depends on where it starts. The paper has three starts:

    linear    evenly spaced between the least and the greatest weight. Reaches the rare large
              weights, which matter most; the paper's choice.
    density   evenly spaced in the cumulative distribution: F(c_j) = (j - 1/2) / k.
    random    k weights, drawn (Forgy).

A Gaussian mixture (Ullrich et al. 2017, Soft Weight-Sharing) fits a density instead,

    p(w) = sum_j pi_j N(w; mu_j, s_j^2)     by expectation and maximisation, from the same starts,

and gives a weight to the component that most likely made it, argmax_j pi_j N(w; mu_j, s_j^2), which
is not always the one with the nearest mean. The shared value of a cluster is the mean of its
members, the best there is for a given clustering. Components that no weight is given to go.

In one dimension a cluster is an interval or a few, so a clustering is a list of thresholds, and
over sorted weights with their cumulative sums S a step of Lloyd needs no more than the k - 1 places
where thresholds fall:

    mean of the weights between places a and b = (S_b - S_a) / (b - a).

A cluster that loses all of its weights (a linear start has such where weights lie far apart) is
spent on the cluster with the largest sum of squares, which is cut in two at its mean.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor

from engine.errors import CodebookDoesNotFit, WeightsNotNumbers
from engine.seeds import derive

Method = Literal["kmeans", "gaussian_mixture"]
Start = Literal["linear", "density", "random"]

LARGEST = 256
"""Entries: an index has at most 8 bits."""
_STEPS = 3000
"""Of Lloyd at most: hundreds suffice for 16 values, 256 may move a little still."""
_MIXTURE_STEPS = 300
_MIXTURE_POINTS = 1 << 14
_BORDERS = 1 << 16

_Floats = NDArray[np.float64]
_Integers = NDArray[np.int64]


class Clusters(NamedTuple):
    """Shared values, ascending but for the zero entry, and which of them each weight has.

    Attributes:
        codebook: `[k]`, distinct values; entry 0 is the exact zero where `keep` was given.
        indices: of the weight's shape, uint8.
    """

    codebook: Tensor
    indices: Tensor


def cluster(
    weight: Tensor,
    *,
    size: int,
    method: Method = "kmeans",
    start: Start = "linear",
    seed: int = 0,
    keep: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> Clusters:
    """Cluster the weights of one tensor.

    Args:
        weight: floating point, any shape, any device.
        size: entries of the codebook, 2 to 256, the zero entry included. Fewer come out where the
            weight has fewer distinct values.
        method: how.
        start: where it starts from.
        seed: of the random start.
        keep: boolean, of the weight's shape: False for pruned weights, which share an exact zero
            as entry 0 and take no part in the clustering. None clusters every weight.
        dtype: of the codebook.

    Raises:
        WeightsNotNumbers: the weight holds NaN or infinity.
        CodebookDoesNotFit: a size that indices of 8 bits cannot have, or a value that `dtype`
            cannot hold.
    """
    if not 2 <= size <= LARGEST:
        raise CodebookDoesNotFit(
            f"a codebook of {size} entries",
            where="size",
            hint=f"indices have 1 to 8 bits: choose 2 to {LARGEST} entries",
        )
    numbers = weight.detach().reshape(-1).cpu()
    numbers = numbers if numbers.dtype == torch.float64 else numbers.float()
    if not bool(numbers.isfinite().all()):
        raise WeightsNotNumbers(
            "the weight holds NaN or infinity, which belong to no cluster",
            hint="upload a model that was trained to numbers, or exclude the layer",
        )
    chosen = None if keep is None else keep.reshape(-1).cpu()
    kept = numbers if chosen is None else numbers[chosen]
    zeros = int(chosen is not None)
    values, labels = _shared(kept, size - zeros, method=method, start=start, seed=seed, dtype=dtype)
    if not bool(values.isfinite().all()):
        raise CodebookDoesNotFit(
            f"a shared value of {float(kept.abs().max()):g} in a codebook of {dtype}",
            hint="choose float32 for the codebook, or exclude the layer",
        )
    indices = torch.zeros(len(numbers), dtype=torch.uint8)
    if chosen is None:
        indices[:] = labels
    else:
        indices[chosen] = labels + 1
        values = torch.cat([values.new_zeros(1), values])
    return Clusters(values.to(weight.device), indices.view(weight.shape).to(weight.device))


def _shared(
    kept: Tensor, entries: int, *, method: Method, start: Start, seed: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Values `[k]`, ascending and distinct, and the entry of each weight, uint8."""
    if not len(kept):
        return torch.zeros(0, dtype=dtype), torch.zeros(0, dtype=torch.uint8)
    distinct, counts = np.unique(kept.numpy(), return_counts=True)
    weight = Histogram(distinct.astype(np.float64), counts.astype(np.int64))
    if len(distinct) <= entries:
        regions = _Regions.nearest(weight.values)
    elif method == "kmeans":
        regions = _Regions.nearest(_kmeans(weight, weight.start(start, entries, seed)))
    else:
        regions = _mixture(weight, weight.start(start, entries, seed))
    means, regions = regions.means(weight)
    # Distinct means may round to one value.
    values, merged = torch.unique(torch.from_numpy(means).to(dtype), return_inverse=True)
    if method == "kmeans":  # nearest to the values as they are stored
        regions = _Regions.nearest(values.double().numpy())
    else:
        regions = _Regions(regions.thresholds, merged.numpy()[regions.owners])
    places = torch.bucketize(kept.double(), torch.from_numpy(regions.thresholds))
    return values, torch.from_numpy(regions.owners.astype(np.uint8))[places]


@dataclass(frozen=True)
class Histogram:
    """Distinct values, ascending, and how many weights have each."""

    values: _Floats
    counts: _Integers

    def start(self, kind: Start, size: int, seed: int) -> _Floats:
        """Where centroids start from, ascending; some may coincide in `density`."""
        if kind == "linear":
            return np.linspace(self.values[0], self.values[-1], size)
        if kind == "density":
            return self.quantiles(size)
        # Values instead of weights are drawn, each as likely as its weights: none comes twice.
        drawn: _Floats = np.random.default_rng(derive(seed, "codebook", "start")).choice(
            self.values, size, replace=False, p=self.counts / self.counts.sum()
        )
        return np.sort(drawn)

    def quantiles(self, size: int) -> _Floats:
        """The weights at (j - 1/2) / size of all."""
        reached = np.cumsum(self.counts)
        ranks = (np.arange(size) + 0.5) / size * reached[-1]
        found: _Floats = self.values[np.searchsorted(reached, ranks)]
        return found

    def condensed(self, most: int) -> Histogram:
        """At most so many means of neighbouring weights, half of them evenly in value and rank."""
        if len(self.values) <= most:
            return self
        even = np.linspace(self.values[0], self.values[-1], most // 2)
        reached = np.cumsum(self.counts)
        ranks = np.linspace(0, reached[-1], most // 2, endpoint=False)
        borders = np.unique(
            np.concatenate([np.searchsorted(self.values, even), np.searchsorted(reached, ranks)])
        )
        counts = np.add.reduceat(self.counts, borders)
        return Histogram(np.add.reduceat(self.values * self.counts, borders) / counts, counts)

    def spread(self, centroids: _Floats) -> float:
        """Sum of squared distances to the nearest of ascending centroids."""
        regions = _Regions.nearest(centroids)
        far = self.values - centroids[regions.of(self.values)]
        return float(self.counts @ far**2)


@dataclass(frozen=True)
class _Regions:
    """Clusters of the line: interval j, up to and with thresholds[j], belongs to owners[j]."""

    thresholds: _Floats
    owners: _Integers

    @classmethod
    def nearest(cls, centroids: _Floats) -> _Regions:
        """Of ascending centroids."""
        halves = centroids / 2  # before the sum, which could overflow
        return cls(halves[:-1] + halves[1:], np.arange(len(centroids)))

    def of(self, values: _Floats) -> _Integers:
        """The cluster of each value."""
        return self.owners[np.searchsorted(self.thresholds, values)]

    def means(self, weight: Histogram) -> tuple[_Floats, _Regions]:
        """Means of the members, and the regions by the clusters that have some."""
        labels = self.of(weight.values)
        counts = np.bincount(labels, weight.counts)
        sums = np.bincount(labels, weight.counts * weight.values)
        there = np.flatnonzero(counts)
        numbers = np.zeros(self.owners.max() + 1, np.int64)
        numbers[there] = np.arange(len(there))
        return sums[there] / counts[there], _Regions(self.thresholds, numbers[self.owners])


def _kmeans(weight: Histogram, start: _Floats) -> _Floats:
    """Lloyd's steps until no weight changes its cluster. Ascending."""
    reached, sums, squares = (
        np.concatenate([[0.0], np.cumsum(weight.counts * weight.values**power)])
        for power in (0, 1, 2)
    )
    size, centroids = len(start), np.unique(start)
    before = np.empty(0, np.int64)
    for _ in range(_STEPS):
        thresholds = _Regions.nearest(centroids).thresholds
        inner = np.searchsorted(weight.values, thresholds, side="right")
        borders = np.unique([0, *inner, len(weight.values)])  # without those that are empty
        if np.array_equal(borders, before):
            break
        while len(borders) <= size:
            members, total, square = (np.diff(each[borders]) for each in (reached, sums, squares))
            spread = np.where(np.diff(borders) > 1, square - total**2 / members, -np.inf)
            widest = int(spread.argmax())
            low, high = borders[widest], borders[widest + 1]
            middle = np.searchsorted(weight.values, total[widest] / members[widest], side="right")
            borders = np.insert(borders, widest + 1, min(max(middle, low + 1), high - 1))
        centroids = np.unique(np.diff(sums[borders]) / np.diff(reached[borders]))
        before = borders
    # Where weights span many orders, rounding can make the result worse than its start.
    found: _Floats = min(centroids, np.unique(start), key=weight.spread)
    return found


def _mixture(weight: Histogram, start: _Floats) -> _Regions:
    # Two seconds, which nothing else need wait for.
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415
    from sklearn.mixture import GaussianMixture  # noqa: PLC0415

    # The library bounds variances from below by an absolute number, so it sees weights of scale 1.
    scale = float(np.sqrt(np.average((weight.values - start.mean()) ** 2, weights=weight.counts)))
    points = weight.quantiles(min(int(weight.counts.sum()), _MIXTURE_POINTS)) / scale
    spacing = (weight.values[-1] - weight.values[0]) / scale / len(start)
    model = GaussianMixture(
        len(start),
        covariance_type="spherical",
        means_init=start[:, None] / scale,
        weights_init=np.full(len(start), 1 / len(start)),
        precisions_init=np.full(len(start), spacing**-2),
        max_iter=_MIXTURE_STEPS,
    )
    # More threads would add up in the order in which they end.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(points[:, None])
    deviations = np.sqrt(model.covariances_)
    logs = np.log(np.maximum(model.weights_, np.finfo(np.float64).tiny)) - np.log(deviations)

    def likeliest(values: _Floats) -> _Integers:
        far = (values[:, None] / scale - model.means_[:, 0]) / deviations
        best: _Integers = np.argmax(logs - far**2 / 2, axis=1)
        return best

    # Borders are looked for among the condensed weights: between two of them lies nothing.
    places = weight.condensed(_BORDERS).values
    labels = likeliest(places)
    changes = np.flatnonzero(np.diff(labels))
    thresholds = places[changes] / 2 + places[changes + 1] / 2
    return _Regions(thresholds, labels[np.append(changes, len(labels) - 1)])
