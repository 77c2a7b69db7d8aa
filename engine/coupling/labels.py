r"""Labels: the names of indices, and which of them must be removed together.

Derivation. Give every index of every weight dimension its own positive integer. An activation
carries, per dimension, the vector of labels its indices stem from; 0 stands for an index that
cannot be removed (batch, pixels, inputs, outputs). If an operator meets two dimensions whose
indices must correspond, position i of one with position i of the other, then removing one
without the other would change the shape or the meaning, so their labels are *united*. Removal is
sound exactly for whole classes of the equivalence relation this generates, so long as no member
is frozen. Classes are the connected components of the graph whose edges are the unions, found
once at the end in time linear in the number of edges (Tarjan 1972; scipy's csgraph).
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

Labels = npt.NDArray[np.int64]
Dimension = Labels | None
"""Labels along one dimension, or None when nothing there can be removed.

int64 [size], or [rows, size] where a reshape merged several labelled dimensions into one: an
index then belongs to one label of each row, and goes when any of them goes.
"""


class Reason(NamedTuple):
    """Why labels were frozen; `report` is false for what nobody would call a channel."""

    operator: str
    text: str
    report: bool = True


@dataclass(frozen=True)
class Range:
    """The labels `start .. start + size - 1` of one dimension of one tensor.

    Attributes:
        tensor: its name, or empty for a tensor made by the program (zeros of a hidden size): its
            size can follow a removal, but it holds nothing that could be removed for itself.
    """

    tensor: str
    dim: int
    start: int
    size: int


class LabelSpace:
    """Allocates labels, collects unions and frozen labels, and resolves them.

    Nothing is looked at before the end: one pass over all labels takes less than one per union.
    """

    def __init__(self) -> None:
        self.ranges: list[Range] = []
        self._starts: list[int] = []
        self._next = 1
        self._left: list[Labels] = []
        self._right: list[Labels] = []
        self._united: list[int] = []
        self._frozen: list[Labels] = []
        self._rank: list[int] = []
        self._reasons: list[Reason] = []

    def allocate(self, tensor: str, dim: int, size: int) -> Labels:
        """Fresh labels for one dimension."""
        self.ranges.append(Range(tensor, dim, self._next, size))
        self._starts.append(self._next)
        labels = np.arange(self._next, self._next + size, dtype=np.int64)
        self._next += size
        return labels

    def unite(self, left: Labels, right: Labels, reason: Reason) -> None:
        """Position by position; a label that meets 0 is frozen."""
        if left.size != right.size:
            raise AssertionError(f"{left.size} labels are united with {right.size}")
        self._left.append(left.ravel())
        self._right.append(right.ravel())
        self._united.append(len(self._reasons))
        self._reasons.append(reason)

    def freeze(self, labels: Labels, reason: Reason, *, foremost: bool = False) -> None:
        """These labels can never be removed.

        Args:
            foremost: of several reasons this one is told; otherwise the earliest.
        """
        number = len(self._reasons)
        self._frozen.append(labels.ravel())
        self._rank.append(-number - 1 if foremost else number)
        self._reasons.append(reason)

    def range_of(self, label: int) -> Range:
        """The dimension a label belongs to."""
        return self.ranges[bisect_right(self._starts, label) - 1]

    def resolve(self) -> Resolution:
        """Components of all labels, and the reason of each frozen one."""
        left, right = _joined(self._left), _joined(self._right)
        event = np.repeat(_numbers(self._united), [own.size for own in self._left])
        differ = left != right
        lonely = differ & ((left == 0) | (right == 0))
        edges = differ & ~lonely
        graph = coo_matrix(
            (np.ones(int(edges.sum()), np.int8), (left[edges], right[edges])),
            shape=(self._next, self._next),
        )
        count, component = connected_components(graph, directed=False)
        labels = _joined([np.maximum(left, right)[lonely], *self._frozen])
        ranks = np.repeat(_numbers(self._rank), [own.size for own in self._frozen])
        rank = np.concatenate([event[lonely], ranks])
        real = labels > 0
        foremost = np.full(count, len(self._reasons), np.int64)
        np.minimum.at(foremost, component[labels[real]], rank[real])
        reason = np.where(foremost < 0, -foremost - 1, foremost)
        reason[foremost == len(self._reasons)] = -1
        return Resolution(
            component=component.astype(np.int64), reason=reason, reasons=self._reasons
        )


def _joined(parts: list[Labels]) -> Labels:
    return np.concatenate([*parts, np.empty(0, np.int64)])


def _numbers(values: list[int]) -> Labels:
    return np.array(values, np.int64)


def distinct(values: Labels) -> Labels:
    """The different values, in rising order; free for the usual case of a rising range."""
    if values.size < 2 or (values[1:] > values[:-1]).all():
        return values
    return np.unique(values)


def principal_row(labels: Labels) -> int:
    """The row of a merged dimension with the most different labels."""
    return int(np.argmax([distinct(row[row > 0]).size for row in labels]))


@dataclass(frozen=True)
class Resolution:
    """What the unions amount to.

    Attributes:
        component: raw component of each label (index 0 is the placeholder label).
        reason: for each raw component the index of the first reason that froze it, or -1.
        reasons: all reasons, in the order they arose.
    """

    component: Labels
    reason: Labels
    reasons: list[Reason]
