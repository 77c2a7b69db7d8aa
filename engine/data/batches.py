"""Batches of a split, in order or in a seeded random order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from engine.data.splits import Split
from engine.structure import map_tensors


@dataclass(frozen=True)
class Batch:
    """Some samples, on the device."""

    inputs: tuple[Any, ...]
    targets: Tensor | None
    size: int


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
    first: int = 0,
) -> Iterator[Batch]:
    """The split, batch by batch; class indices become int64.

    Without `order` batches are contiguous views of the file; with it each batch gathers its rows
    in one indexing call. The batches before `first` are left out, and nothing of them is read.
    """
    for start, stop in bounds(split.samples, batch_size, merge_last=merge_last)[first:]:
        if order is None:
            rows = partial(_span, start, stop, device)
            targets = None if split.targets is None else split.targets[start:stop]
        else:
            chosen = order[start:stop]
            rows = partial(_picked, chosen, device)
            targets = None if split.targets is None else split.targets.index_select(0, chosen)
        yield Batch(
            inputs=tuple(map_tensors(value, rows) for value in split.inputs),
            targets=None if targets is None else targets.to(device=device, dtype=torch.int64),
            size=stop - start,
        )


def _span(start: int, stop: int, device: str, tensor: Tensor) -> Tensor:
    return tensor[start:stop].to(device)


def _picked(chosen: Tensor, device: str, tensor: Tensor) -> Tensor:
    return tensor.index_select(0, chosen).to(device)
