"""Columns of a dataset: one value a sample, in memory, in a mapped file, or made when asked for.

A tensor is a column whose rows are there. A `Column` reads, decodes or computes its rows for one
batch at a time, so that a dataset may be larger than memory. Both stand at the leaves of a split's
inputs, and everything that reads rows goes through `rows_of` and `span_of`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.data.draws import Draw


class Column(ABC):
    """Rows that are made when asked for. Rows may be asked for from any thread."""

    @property
    def are_images(self) -> bool:
        """Whether rows are decoded from image files."""
        return False

    @property
    @abstractmethod
    def samples(self) -> int:
        """How many rows it has."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """Of every row."""

    @abstractmethod
    def take(self, rows: Tensor, draw: Draw | None = None) -> Tensor:
        """The rows at these positions, stacked: a tensor of its own, [len(rows), ...].

        Args:
            rows: int64 positions, in any order, repeated or not.
            draw: what decides random transforms, in training; None applies none of them.

        Raises:
            DatasetInvalid: a row cannot be read; names the file or the row.
        """

    def take_each(self, rows: Tensor, draw: Draw | None = None) -> list[Tensor]:
        """The same rows one by one, which may differ in shape."""
        return list(self.take(rows, draw))

    def described(self, row: int) -> str:
        """A row in words, for errors."""
        return f"row {row}"


Leaf = Tensor | Column


def map_columns(value: Any, change: Callable[[Leaf], Any]) -> Any:
    """The same structure in containers of its own, every column changed."""
    if isinstance(value, Tensor | Column):
        return change(value)
    if isinstance(value, list):
        return [map_columns(item, change) for item in value]
    if isinstance(value, tuple):
        return tuple(map_columns(item, change) for item in value)
    if isinstance(value, dict):
        return {key: map_columns(item, change) for key, item in value.items()}
    return value


def columns_in(value: Any) -> Iterator[Leaf]:
    """Every column in nested data, in order."""
    if isinstance(value, Tensor | Column):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from columns_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from columns_in(item)


def samples_of(column: Leaf) -> int:
    """How many rows a column has."""
    return column.samples if isinstance(column, Column) else int(column.shape[0])


def rows_of(column: Leaf, rows: Tensor, draw: Draw | None = None) -> Tensor:
    """Some rows, gathered into a tensor of their own."""
    if isinstance(column, Column):
        return column.take(rows, draw)
    return column.index_select(0, rows)


def span_of(column: Leaf, start: int, stop: int, draw: Draw | None = None) -> Tensor:
    """Neighbouring rows; a view where the column is a tensor."""
    if isinstance(column, Column):
        return column.take(torch.arange(start, stop), draw)
    return column[start:stop]


@dataclass(frozen=True)
class Chosen(Column):
    """Some rows of a column, in an order of their own.

    Attributes:
        whole: the column.
        chosen: positions in it, int64.
    """

    whole: Column
    chosen: Tensor

    @property
    def are_images(self) -> bool:
        """See `Column`."""
        return self.whole.are_images

    @property
    def samples(self) -> int:
        """How many rows were chosen."""
        return len(self.chosen)

    @property
    def dtype(self) -> torch.dtype:
        """Of the column."""
        return self.whole.dtype

    def take(self, rows: Tensor, draw: Draw | None = None) -> Tensor:
        """See `Column`."""
        return self.whole.take(self.chosen.index_select(0, rows), draw)

    def described(self, row: int) -> str:
        """See `Column`."""
        return self.whole.described(int(self.chosen[row]))


def chosen(column: Leaf, rows: Tensor) -> Leaf:
    """Some rows as a column: read now where the column is a tensor, else when asked for."""
    return Chosen(column, rows) if isinstance(column, Column) else column.index_select(0, rows)


@dataclass(frozen=True)
class Joined(Column):
    """The rows of one column, then those of another, or of one value again and again.

    Attributes:
        first: its rows come first.
        second: comes after it, of the same dtype and shape of a row.
    """

    first: Leaf
    second: Leaf

    @property
    def samples(self) -> int:
        """Of both."""
        return samples_of(self.first) + samples_of(self.second)

    @property
    def dtype(self) -> torch.dtype:
        """Of both."""
        return self.first.dtype

    def take(self, rows: Tensor, draw: Draw | None = None) -> Tensor:
        """See `Column`."""
        border = samples_of(self.first)
        early = rows < border
        if bool(early.all()):
            return rows_of(self.first, rows, draw)
        if not bool(early.any()):
            return rows_of(self.second, rows - border, draw)
        front = rows_of(self.first, rows[early], draw)
        back = rows_of(self.second, rows[~early] - border, draw)
        found = front.new_empty((len(rows), *front.shape[1:]))
        found[early], found[~early] = front, back
        return found
