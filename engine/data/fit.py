"""Does the dataset fit the model and the objective? Asked once, before any work is spent.

The first samples run through the model. Then all rows are read, some at a time, and held against
the shape of what came out: a dataset may be larger than memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from engine.calling import call, describe, plain_execution
from engine.data.batches import Batch, batches
from engine.data.columns import Column, Leaf, map_columns
from engine.data.numbers import NumberCheck
from engine.data.splits import Split
from engine.errors import DatasetInvalid
from engine.objective.objective import CLASSIFICATION, Objective
from engine.objective.reading import Reader
from engine.structure import at_batch_size, tensors_in

_ROWS = 1024
_BYTES = 1 << 25
"""Samples that are read at a time, and their size; at least one is."""
_NAMED = 8
"""Missing classes that are named before the rest is only counted."""


def check_split(
    module: Callable[..., Any],
    split: Split,
    *,
    device: str,
    samples: int = 1,
    objective: Objective = CLASSIFICATION,
) -> list[str]:
    """Run the first samples and hold all rows against the output.

    Args:
        module: the program, in evaluation mode.
        split: what to check.
        device: where the program lies.
        samples: batch size to run, which a program may insist on.
        objective: of the job.

    Returns:
        What is no fault and worth a warning.

    Raises:
        InputsDoNotFit: the model refuses the inputs; names the tensor.
        DatasetInvalid: targets of wrong dtype, shape or range, or values that are no numbers;
            names the tensor and the row.
        OutputNotFound: the output lacks the tensor that the objective names.
        ObjectiveModuleInvalid: an uploaded loss or metric does not do what one must.
    """
    batch, output = _first(module, split, device, samples)
    numbers = NumberCheck(split)
    held = _Held(objective, split)
    judged = split.targets is not None or not objective.needs_targets
    if judged:
        held.see_output(output, samples)
    for start, rows in _rows(split):
        numbers.see(rows, start)
        held.see_rows(rows, start)
    if judged:
        objective.check_modules(output, batch)
    return [*numbers.remarks, *held.remarks()]


def _first(
    module: Callable[..., Any], split: Split, device: str, samples: int
) -> tuple[Batch, Any]:
    """The first samples, as many as asked for, and what the model makes of them."""
    taken = min(samples, split.samples)
    found = next(batches(split, taken, device=device, merge_last=False))
    batch = Batch(
        inputs=at_batch_size(found.inputs, samples),
        targets=at_batch_size((found.targets,), samples)[0],
        size=samples,
    )
    with torch.no_grad(), plain_execution():
        return batch, call(module, batch.inputs, where=", ".join(split.input_names))


def _rows(split: Split) -> Iterator[tuple[int, Batch]]:
    """All samples, some at a time, each with the number of the first.

    Image files hold no number that could be wrong, and decoding all of them would take as long as
    an epoch: they are left out.
    """
    known = replace(split, inputs=tuple(map_columns(one, _unless_images) for one in split.inputs))
    inputs, targets, _ = known.span(0, 1)
    size = sum(one.numel() * one.element_size() for one in tensors_in([inputs, targets]))
    at_a_time = max(1, min(_ROWS, _BYTES // max(size, 1)))
    start = 0
    for batch in batches(known, at_a_time, device="cpu", merge_last=False):
        yield start, batch
        start += batch.size


def _unless_images(column: Leaf) -> Leaf:
    if isinstance(column, Column) and column.are_images:
        return torch.empty(column.samples, 0)
    return column


@dataclass
class _Held:
    """Targets held against an output, by every way they are read.

    Attributes:
        objective: of the job.
        split: under check.
        scores: the output's tensors, by reader; empty where nothing can be held against them.
        seen: targets of every class so far, where there are classes.
    """

    objective: Objective
    split: Split
    scores: dict[Reader, Tensor] = field(default_factory=dict)
    seen: Tensor | None = None

    @property
    def name(self) -> str:
        """Of the tensor that holds the targets."""
        names = self.split.target_names or self.split.input_names
        return names[min(self.objective.options.target or 0, len(names) - 1)]

    def see_output(self, output: Any, samples: int) -> None:
        """Every tensor of the output that is read."""
        self._one_target()
        for reader in self.objective.readers:
            scores = reader.raw(output)
            if scores is None:
                continue
            if scores.dim() == 0 or scores.shape[0] != samples:
                raise DatasetInvalid(
                    f"the model returns {describe([scores])} for {samples} samples of the dataset",
                    hint="the first dimension of the output must count samples; its second, "
                    "classes; `objective.output` chooses another tensor of it",
                    where=self.name,
                )
            reader.check_scores(scores, self.name)
            self.scores[reader] = scores

    def _one_target(self) -> None:
        """A built-in loss takes one of several targets; an uploaded module may take all."""
        names, chosen = self.split.target_names, self.objective.options.target
        if chosen is not None and names and chosen >= len(names):
            raise DatasetInvalid(
                f"`objective.target: {chosen}` names no target of the `{self.split.name}` split, "
                f"which has {len(names)}",
                hint=f"they are {', '.join(names)}, counted from 0",
                where="recipe.objective.target",
            )
        if len(names) > 1 and chosen is None and not self.objective.takes_all_targets:
            raise DatasetInvalid(
                f"the `{self.split.name}` split has {len(names)} target tensors; "
                f"`{self.objective.loss.name}` takes one",
                hint=f"keep `{names[0]}` only, or choose one with `objective.target`",
                where=names[1],
            )

    def see_rows(self, rows: Batch, start: int) -> None:
        """Some rows, the first of them with this number."""
        for reader, scores in self.scores.items():
            reader.check_targets(scores, rows, self.name, start)
        reader = self.objective.loss.reader
        if reader in self.scores:
            counts = reader.classes_in(self.scores[reader], rows)
            if counts is not None:
                self.seen = counts if self.seen is None else self.seen + counts

    def remarks(self) -> list[str]:
        """Classes without a target.

        Raises:
            DatasetInvalid: no target counts at all.
        """
        if self.seen is None:
            return []
        missing = (self.seen == 0).nonzero().flatten().tolist()
        if len(missing) == self.seen.numel():
            raise DatasetInvalid(
                f"every target of `{self.name}` is ignored: there is nothing to learn or to judge "
                "by",
                hint="correct `objective.ignore_index`, or give targets of classes",
                where=self.name,
            )
        if not missing:
            return []
        named = ", ".join(map(str, missing[:_NAMED]))
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        several = len(missing) > 1
        return [
            f"`{self.name}` has no target of class{'es' if several else ''} {named}{more}: the "
            f"{self.split.name} split says nothing of {'them' if several else 'it'}"
        ]
