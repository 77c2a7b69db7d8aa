"""A weight as indices into a small table of shared values (Han et al. 2016, Deep Compression).

n weights with k shared values of t bits take n ceil(log2 k) + k t bits, and a table for each group
of rows takes its own k t. Row r of R belongs to group floor(r G / R) of G, so groups differ by at
most one row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from engine.errors import CodebookDoesNotFit, EngineError
from engine.quantisation.clustering import Clusters, Method, Start, cluster
from engine.quantisation.encoding import Encoding
from engine.quantisation.index_packing import pack, unpack, unpack_source, width_for
from engine.seeds import derive

TABLE_TYPES = (torch.float32, torch.float16)


@dataclass(frozen=True, eq=False)
class Codebook(Encoding):
    """Shared values and, for every weight, which of them it has.

    Attributes:
        packed: the indices, uint8, see `engine.quantisation.index_packing`.
        table: `[groups, k]`, float32 or float16. Rows with fewer values repeat their last.
        zero: entry 0 of every group is the exact zero of pruned weights, which stays when
            centroids are trained.
    """

    packed: Tensor
    table: Tensor
    zero: bool

    scheme: ClassVar[str] = "codebook"

    @classmethod
    def of_clusters(
        cls, indices: Tensor, table: Tensor, *, dtype: torch.dtype, zero: bool
    ) -> Codebook:
        """From indices of the weight's shape, uint8, and a table `[groups, k]`."""
        packed = pack(indices.reshape(-1), width_for(table.shape[1]))
        return cls(tuple(indices.shape), dtype, packed, table, zero)

    @property
    def groups(self) -> int:
        """How many groups of rows have a table of their own."""
        return self.table.shape[0]

    @property
    def width(self) -> int:
        """Bits of an index."""
        return width_for(self.table.shape[1])

    @property
    def indices(self) -> Tensor:
        """For every weight its entry in the table of its group: uint8, of the weight's shape."""
        return unpack(self.packed, self._elements, self.width).view(self.shape)

    @property
    def places(self) -> Tensor:
        """For every weight its entry in `table.flatten()`: int32, of the weight's shape."""
        indices = self.indices.to(torch.int32)
        if self.groups == 1:
            return indices
        return (indices.view(self.shape[0], -1) + self._offsets.unsqueeze(1)).view(self.shape)

    @property
    def held(self) -> Tensor:
        """Of `table.flatten()`, the entries that training must leave: boolean `[groups k]`."""
        held = torch.zeros_like(self.table, dtype=torch.bool)
        held[:, 0] = self.zero
        return held.flatten()

    def with_table(self, table: Tensor) -> Codebook:
        """The same indices with other shared values, rounded to the table's type.

        Args:
            table: `[groups, k]` or flat. Entries of `held` are ignored: they stay zero.
        """
        table = table.detach().to(self.table).reshape(self.table.shape).clone()
        if self.zero:
            table[:, 0] = 0.0
        return Codebook(self.shape, self.dtype, self.packed, table, self.zero)

    @property
    def parts(self) -> dict[str, Tensor]:
        """`indices`, packed, and `table`."""
        return {"indices": self.packed, "table": self.table}

    @property
    def packed_parts(self) -> dict[str, tuple[int, int]]:
        """The indices."""
        return {"indices": (self._elements, self.width)}

    @property
    def saved_bytes(self) -> int:
        """Bytes less than the dense weight takes; negative where the table costs more."""
        return self._elements * self.dtype.itemsize - self.stored_bytes

    @property
    def decoder(self) -> str:
        """Unpacks the indices and looks them up."""
        lines = unpack_source(self._elements, self.width, packed="indices", numbers="numbers")
        lines += "    places = numbers.to(torch.int32)\n"
        if self.groups > 1:
            rows = self.shape[0]
            lines += (
                f"    rows = torch.arange({rows}, dtype=torch.int32, device=indices.device)\n"
                f"    groups = torch.div(rows * {self.groups}, {rows}, rounding_mode='floor')\n"
                f"    offsets = (groups * {self.table.shape[1]}).unsqueeze(1)\n"
                f"    places = (places.view({rows}, -1) + offsets).flatten()\n"
            )
        shape = list(self.shape)
        cast = "" if self.table.dtype == self.dtype else f".to({self.dtype})"
        return (
            "def decode(indices: Tensor, table: Tensor) -> Tensor:\n"
            f"{lines}"
            f"    return table.flatten().index_select(0, places){cast}.view({shape})\n"
        )

    def decode(self) -> Tensor:
        """The weight, bit for bit what the decoder gives."""
        found = self.table.flatten().index_select(0, self.places.flatten())
        return found.to(self.dtype).view(self.shape)

    def to_plain(self) -> dict[str, Any]:
        """Plain data and tensors."""
        return {
            "shape": list(self.shape),
            "dtype": str(self.dtype).removeprefix("torch."),
            "indices": self.packed,
            "table": self.table,
            "zero": self.zero,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Codebook:
        """The inverse of `to_plain`."""
        return cls(
            tuple(plain["shape"]),
            getattr(torch, plain["dtype"]),
            plain["indices"],
            plain["table"],
            plain["zero"],
        )

    @property
    def _elements(self) -> int:
        return torch.Size(self.shape).numel()

    @property
    def _offsets(self) -> Tensor:
        rows = torch.arange(self.shape[0], dtype=torch.int32, device=self.table.device)
        groups = torch.div(rows * self.groups, self.shape[0], rounding_mode="floor")
        return groups * self.table.shape[1]


def codebook_of(
    name: str,
    weight: Tensor,
    *,
    size: int,
    method: Method = "kmeans",
    start: Start = "linear",
    seed: int = 0,
    keep: Tensor | None = None,
    groups: int = 1,
    dtype: torch.dtype = torch.float32,
) -> Codebook:
    """Share the weights of a tensor; its new values are what the result decodes to.

    Args:
        name: of the weight, for errors and for the seed of the random start.
        weight: floating point; stays as it is.
        size: entries of a table, 2 to 256, the zero entry included.
        method: see `engine.quantisation.clustering`.
        start: see there.
        seed: of the run.
        keep: False for pruned weights, which stay exactly zero; None where none is pruned.
        groups: of rows (slices of the first dimension) that have a table each.
        dtype: of the table, float32 or float16.

    Raises:
        WeightsNotNumbers: the weight holds NaN or infinity.
        CodebookDoesNotFit: the size, the groups or the type of the table do not fit the weight.
    """
    if dtype not in TABLE_TYPES:
        raise CodebookDoesNotFit(f"a table of {dtype}", where=name, hint="float32 or float16")
    rows = weight.shape[0] if weight.dim() else 1
    if not 1 <= groups <= max(rows, 1):
        raise CodebookDoesNotFit(
            f"{groups} groups for the {rows} rows of `{name}`",
            where=name,
            hint=f"choose 1 to {rows} groups: each has a row at least",
        )
    if keep is not None and bool(keep.all()):
        keep = None
    borders = [-(-group * rows // groups) for group in range(groups + 1)]
    found: list[Clusters] = []
    for group, (first, last) in enumerate(pairwise(borders)):
        of_group = slice(first, last) if groups > 1 else ...
        try:
            found.append(
                cluster(
                    weight[of_group],
                    size=size,
                    method=method,
                    start=start,
                    seed=derive(seed, "codebook", name, group),
                    keep=None if keep is None else keep[of_group],
                    dtype=dtype,
                )
            )
        except EngineError as error:
            title = error.title.replace("the weight", f"the weight `{name}`")
            raise type(error)(title, where=name, hint=error.hint) from error
    entries = max([1, *(len(each.codebook) for each in found)])
    table = torch.stack([_filled(each.codebook, entries) for each in found])
    indices = found[0].indices if groups == 1 else torch.cat([each.indices for each in found])
    return Codebook.of_clusters(indices, table, dtype=weight.dtype, zero=keep is not None)


def _filled(values: Tensor, entries: int) -> Tensor:
    last = values[-1:] if len(values) else values.new_zeros(1)
    return torch.cat([values, last.expand(entries - len(values))])
