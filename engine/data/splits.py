"""A dataset as jobs see it: splits of samples, whose rows are read when they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, TypeVar

import torch
from torch import Tensor

from engine.data.columns import (
    Joined,
    Leaf,
    chosen,
    columns_in,
    map_columns,
    rows_of,
    samples_of,
    span_of,
)
from engine.data.draws import Draw
from engine.errors import DatasetInvalid

SplitName = Literal["train", "validation", "unlabelled"]
_T = TypeVar("_T")
Targets: TypeAlias = _T | tuple[_T, ...] | None
Rows: TypeAlias = tuple[tuple[Any, ...], Targets[Tensor], Tensor | None]
"""Inputs and targets of some samples, and which have targets where not all have."""


@dataclass(frozen=True)
class Split:
    """Samples of one purpose.

    Attributes:
        name: `train`, `validation` or `unlabelled`.
        inputs: one column per positional argument of `forward`, samples first; or a nested
            argument, whose parts are still in dictionaries by name until
            `engine.data.arguments.arrange_split`. A column is a tensor, or read when asked for
            (see `engine.data.columns`).
        input_names: the names of all columns of the inputs, in order.
        targets: one column, several in the order of their index, or None.
        target_name: name of the first in the file.
        more_target_names: names of the others.
        labelled: the samples before this one have targets; None where all have, or none.
    """

    name: SplitName
    inputs: tuple[Any, ...]
    input_names: tuple[str, ...]
    targets: Targets[Leaf]
    target_name: str
    more_target_names: tuple[str, ...] = ()
    labelled: int | None = None

    @property
    def samples(self) -> int:
        """Number of samples."""
        return next((samples_of(column) for column in columns_in(self.inputs)), 1)

    @property
    def target_names(self) -> tuple[str, ...]:
        """The names of all columns of the targets, in order."""
        return () if self.targets is None else (self.target_name, *self.more_target_names)

    def rows(self, rows: Tensor, draw: Draw | None = None) -> Rows:
        """Some samples, gathered.

        Args:
            rows: positions, int64.
            draw: decides the random transforms of training; None applies none.

        Raises:
            DatasetInvalid: a sample cannot be read; names it.
        """
        known = None if self.labelled is None else rows < self.labelled
        return self._read(lambda column: rows_of(column, rows, draw), known)

    def span(self, start: int, stop: int, draw: Draw | None = None) -> Rows:
        """Neighbouring samples; views of the file where it holds tensors that can be mapped."""
        known = None if self.labelled is None else torch.arange(start, stop) < self.labelled
        return self._read(lambda column: span_of(column, start, stop, draw), known)

    def chosen(self, rows: Tensor) -> Split:
        """Some samples as a split of their own."""
        if self.labelled is not None:
            raise ValueError("samples are chosen before unlabelled ones are added")
        return self.map(lambda column: chosen(column, rows))

    def map(self, change: Callable[[Leaf], Any]) -> Split:
        """The same split, every column of inputs and targets changed."""
        return replace(
            self,
            inputs=tuple(map_columns(value, change) for value in self.inputs),
            targets=map_columns(self.targets, change),
        )

    def with_unlabelled(self, more: Split) -> Split:
        """These samples and then those of another split, which have no targets.

        Targets of the latter read as zeros; `labelled` of a batch tells which they are. Where
        these samples have no targets either, nobody asks.
        """
        fronts, backs = list(columns_in(self.inputs)), list(columns_in(more.inputs))
        joined = iter([Joined(one, other) for one, other in zip(fronts, backs, strict=True)])
        return replace(
            self,
            inputs=tuple(map_columns(value, lambda _: next(joined)) for value in self.inputs),
            targets=map_columns(self.targets, lambda column: Joined(column, _absent(column, more))),
            labelled=None if self.targets is None else self.samples,
        )

    def _read(self, read: Callable[[Leaf], Tensor], labelled: Tensor | None) -> Rows:
        inputs = tuple(map_columns(value, read) for value in self.inputs)
        return inputs, map_columns(self.targets, read), labelled


def _absent(column: Leaf, split: Split) -> Tensor:
    """Targets that nobody gave, shaped like those of a column, without memory for each sample."""
    row = span_of(column, 0, 1)
    return torch.zeros_like(row).expand(split.samples, *row.shape[1:])


@dataclass(frozen=True)
class Dataset:
    """An opened dataset file.

    Attributes:
        train: to learn from.
        validation: to measure on.
        unlabelled: inputs without targets, for a teacher to label.
        classes: names of the classes that the file names, by index.
    """

    train: Split | None
    validation: Split | None
    unlabelled: Split | None = None
    classes: tuple[str, ...] = field(default=())

    @property
    def splits(self) -> list[Split]:
        """Those that are there."""
        return [one for one in (self.train, self.validation, self.unlabelled) if one is not None]

    @property
    def examples(self) -> Split:
        """The split that example inputs are taken from."""
        return self.validation if self.validation is not None else self.require_any()

    def require_any(self) -> Split:
        """The training split, where there is no validation split.

        Raises:
            DatasetInvalid: there is neither.
        """
        if self.train is None:
            raise DatasetInvalid(
                "the dataset has neither a `train` nor a `validation` split",
                hint="add tensors `train/inputs/0` and `train/targets/0`",
                where="train/inputs/0",
            )
        return self.train

    def require(self, name: SplitName, field: str, *, targets: bool = True) -> Split:
        """The split that a recipe field needs, with its targets unless it needs none.

        Raises:
            DatasetInvalid: it is missing, or has no targets.
        """
        split = self.require_inputs(name, field)
        if targets and split.targets is None:
            raise DatasetInvalid(
                f"the `{name}` split has no targets, which `{field}` needs",
                hint=f"add a tensor `{name}/targets/0` of class indices (int64)",
                where=f"{name}/targets/0",
            )
        return split

    def require_inputs(self, name: SplitName, field: str) -> Split:
        """The split that a recipe field needs, with or without targets.

        Raises:
            DatasetInvalid: it is missing.
        """
        split: Split | None = getattr(self, name)
        if split is None:
            raise DatasetInvalid(
                f"the dataset has no `{name}` split, which `{field}` needs",
                hint=f"add tensors `{name}/inputs/0`"
                + ("" if name == "unlabelled" else f" and `{name}/targets/0`"),
                where=f"{name}/inputs/0",
            )
        return split
