"""Batches of a split, in order or in a seeded random order."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import torch
from torch import Tensor

from engine.data.columns import Column, columns_in
from engine.data.draws import Draw
from engine.data.prefetch import prefetched
from engine.data.splits import Split, Targets
from engine.structure import map_tensors, tensors_in

_WORTH_A_THREAD = 1 << 20


@dataclass(frozen=True)
class Batch:
    """Some samples, on the device.

    Attributes:
        inputs: of forward.
        targets: in the dtype of the file: one tensor, several in the order of their index, or
            None where the split has none.
        size: samples.
        labelled: which samples have targets, bool [size]; None where all have, or none.
        rows: positions of the samples in the split, int64 [size], in main memory.
    """

    inputs: tuple[Any, ...]
    targets: Targets[Tensor]
    size: int
    labelled: Tensor | None = None
    rows: Tensor | None = None

    def cut(self, largest: int) -> list[Batch]:
        """The batch in as few parts of at most so many samples as possible, as even as possible."""
        parts = -(-self.size // largest)
        if parts == 1:
            return [self]
        edges = [self.size * number // parts for number in range(parts + 1)]
        return [self._span(start, stop) for start, stop in pairwise(edges)]

    def _span(self, start: int, stop: int) -> Batch:
        def rows(tensor: Tensor) -> Tensor:
            samples = tensor.dim() > 0 and tensor.shape[0] == self.size
            return tensor[start:stop] if samples else tensor

        return Batch(
            inputs=tuple(map_tensors(value, rows) for value in self.inputs),
            targets=map_tensors(self.targets, rows),
            size=stop - start,
            labelled=map_tensors(self.labelled, rows),
        )


def bounds(samples: int, batch_size: int, *, merge_last: bool = True) -> list[tuple[int, int]]:
    """Half-open sample ranges of the batches; every sample is in exactly one.

    A lone last sample joins the batch before it: batch normalisation cannot train on one value
    per channel, and dropping the sample would silently leave data out. With `merge_last` off no
    batch is larger than `batch_size`.
    """
    ranges = [(start, min(start + batch_size, samples)) for start in range(0, samples, batch_size)]
    if merge_last and len(ranges) > 1 and ranges[-1][1] - ranges[-1][0] == 1:
        last = ranges.pop()
        ranges[-1] = (ranges[-1][0], last[1])
    return ranges


def shuffled(samples: int, generator: torch.Generator) -> Tensor:
    """A random order of the samples."""
    return torch.randperm(samples, generator=generator)


def batches(
    split: Split,
    batch_size: int,
    *,
    device: str,
    order: Tensor | None = None,
    merge_last: bool = True,
    draw: Draw | None = None,
    first: int = 0,
    own: Callable[[int, int], tuple[int, int]] | None = None,
) -> Generator[Batch]:
    """The split, batch by batch; targets keep their dtype.

    Without `order` batches of tensors are contiguous views of the file; with it each batch
    gathers its rows. Where that is work, a thread makes the batches ahead of their use.

    Args:
        split: to read.
        batch_size: samples at a time.
        device: where batches go.
        order: of the samples; None for that of the file.
        merge_last: see `bounds`.
        draw: decides the random transforms of training; None applies none.
        first: batches that are left out at the start, unread.
        own: of the samples start .. stop of a batch those that are read; None reads all.

    Raises:
        DatasetInvalid: a sample cannot be read; names it.
    """
    ranges = bounds(split.samples, batch_size, merge_last=merge_last)[first:]
    if own is not None:
        ranges = [own(start, stop) for start, stop in ranges]
    made = _made(split, ranges, order, draw, pinned=device.startswith("cuda"))
    if len(ranges) > 1 and _worth_a_thread(split, batch_size, device):
        made = prefetched(made)
    with closing(made):
        for batch in made:
            yield batch if device == "cpu" else _moved(batch, device)


def _made(
    split: Split,
    ranges: list[tuple[int, int]],
    order: Tensor | None,
    draw: Draw | None,
    *,
    pinned: bool,
) -> Generator[Batch]:
    for start, stop in ranges:
        rows = None if order is None else order[start:stop]
        inputs, targets, labelled = (
            split.span(start, stop, draw) if rows is None else split.rows(rows, draw)
        )
        placed = torch.arange(start, stop) if rows is None else rows
        batch = Batch(inputs, targets, stop - start, labelled, placed)
        yield _each(batch, Tensor.pin_memory) if pinned else batch


def _worth_a_thread(split: Split, batch_size: int, device: str) -> bool:
    """Whether making a batch is more work than handing it from thread to thread."""
    found = list(chain(columns_in(split.inputs), columns_in(split.targets)))
    if device != "cpu" or any(isinstance(column, Column) for column in found):
        return True
    row = sum(tensor[0].numel() * tensor.element_size() for tensor in tensors_in(found))
    return row * batch_size >= _WORTH_A_THREAD


def _moved(batch: Batch, device: str) -> Batch:
    # From pinned memory the copy runs beside the model's work.
    return _each(batch, lambda tensor: tensor.to(device, non_blocking=True))


def _each(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    return Batch(
        inputs=tuple(map_tensors(value, change) for value in batch.inputs),
        targets=map_tensors(batch.targets, change),
        size=batch.size,
        labelled=map_tensors(batch.labelled, change),
        rows=batch.rows,
    )
