r"""Training of shared weights: the centroids of a codebook move, their members follow.

Every element of a weight is one of k centroids, :math:`w_i = c_{a(i)}` with a fixed assignment a.
By the chain rule

.. math:: \frac{\partial L}{\partial c_j} = \sum_{i: a(i) = j} \frac{\partial L}{\partial w_i}

(Han, Mao & Dally 2016, "Deep Compression", ICLR, section 3.3). A sum, not a mean: a centroid with
many members moves further at the same learning rate, for all of them agree on a step. Centroids
that stand for pruned weights are zero and get no gradient.

The sums are the same in every run, on a CPU and on a GPU alike: members are gathered centroid by
centroid into rows of equal length and summed row by row, and the sums of rows once more. Adding
each element to its centroid as it comes would be atomic on a GPU, in any order.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from engine.quantisation.codebook import Codebook
from engine.quantisation.reparametrisation import Reparametrisation

_ROW = 1024
_CENTROIDS = "centroids"


class SharedCentroids(Reparametrisation):
    """A weight whose elements are entries of a codebook.

    Centroids move in the type of the weight. Where the table is stored in a shorter one, the
    weight has the values that the table has, and the gradient passes that rounding unchanged.

    Args:
        codebook: of the weight.
    """

    def __init__(self, codebook: Codebook) -> None:
        self._codebook = codebook
        self._places = codebook.places.reshape(-1)
        self._held = codebook.held
        self._sums: SegmentSums | None = None

    def begin(self, weight: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """The entries of the table; those of pruned weights are held."""
        del mask
        self._places = self._places.to(weight.device)
        self._held = self._held.to(weight.device)
        self._sums = SegmentSums(self._places.to(torch.int64), len(self._held))
        table = self._codebook.table.flatten()
        return {_CENTROIDS: table.to(weight.device, weight.dtype, copy=True)}

    def value(self, latents: Mapping[str, Tensor]) -> Tensor:
        """Every element its entry."""
        table = latents[_CENTROIDS].detach().to(self._codebook.table.dtype)
        found = table.index_select(0, self._places).to(self._codebook.dtype)
        return found.reshape(self._codebook.shape)

    @torch.no_grad()
    def gradients(self, latents: Mapping[str, Tensor], gradient: Tensor) -> dict[str, Tensor]:
        """Summed over members."""
        if self._sums is None:
            raise ValueError("gradients before training began")
        summed = self._sums.of(gradient.reshape(-1)).masked_fill_(self._held, 0.0)
        return {_CENTROIDS: summed.to(latents[_CENTROIDS].dtype)}

    def encoding(self, latents: Mapping[str, Tensor]) -> Codebook:
        """The same indices into the table as it is now."""
        return self._codebook.with_table(latents[_CENTROIDS].cpu())


class SegmentSums:
    """Sums of the elements of each of k segments, in an order that is always the same.

    Args:
        segments: int64 [n], the segment of every element, from 0.
        count: k.
    """

    def __init__(self, segments: Tensor, count: int) -> None:
        n = len(segments)
        sizes = torch.bincount(segments, minlength=count)
        order = torch.argsort(segments, stable=True)
        rows = -(-sizes // _ROW)
        row_segment = torch.repeat_interleave(torch.arange(count, device=segments.device), rows)
        # Where each segment's elements, and its rows, begin.
        first = sizes.cumsum(0) - sizes
        first_row = rows.cumsum(0) - rows
        number = torch.arange(len(row_segment), device=segments.device) - first_row[row_segment]
        begin = first[row_segment] + number * _ROW
        end = (first + sizes)[row_segment]
        places = begin[:, None] + torch.arange(_ROW, device=segments.device)
        # Beyond the last element of a segment stands one more element, which is zero.
        padded = torch.cat([order, order.new_tensor([n])])
        self._elements = padded[torch.where(places < end[:, None], places, n)]
        most = int(rows.max()) if len(rows) else 0
        columns = first_row[:, None] + torch.arange(most, device=segments.device)
        behind = len(row_segment)
        self._rows = torch.where(columns < (first_row + rows)[:, None], columns, behind)

    def of(self, elements: Tensor) -> Tensor:
        """Args: elements: [n], floating point. Returns: float64 [k]."""
        padded = torch.cat([elements, elements.new_zeros(1)])
        rows = padded[self._elements].sum(1, dtype=torch.float64)
        rows = torch.cat([rows, rows.new_zeros(1)])
        return rows[self._rows].sum(1)
