"""Gradient accumulation: several micro-batches, one step of the optimiser.

The mean loss over a batch of n samples, cut into micro-batches of n_1 .. n_N, is

    L = sum_j (n_j / n) L_j,    L_j the mean over micro-batch j

and so is its gradient. The shares n_j / n differ where the last micro-batch of an epoch is smaller
(or larger, see `engine.data.batches.bounds`), so the plain mean of the means would be another loss.
The steps of an epoch are those of batches N times as large, sample for sample.
"""

from __future__ import annotations

from dataclasses import dataclass

from secateur.recipe import FinetuneOptions

from engine.data.batches import bounds


@dataclass(frozen=True)
class MicroBatch:
    """One of the micro-batches of an epoch.

    Attributes:
        step: of the optimiser that it belongs to, from 0 in the epoch.
        first: whether the step begins with it.
        last: whether the step is taken after it.
        share: of the samples of the step; where several processes train, times the weight of
            what this one takes of it (see `engine.training.world`).
        counted: whether this process counts its loss.
    """

    step: int
    first: bool
    last: bool
    share: float
    counted: bool = True


def steps_of_an_epoch(options: FinetuneOptions, samples: int) -> int:
    """Optimiser steps of an epoch over this many samples."""
    return -(-len(bounds(samples, options.batch_size)) // options.accumulate)


def micro_batches(options: FinetuneOptions, samples: int) -> list[MicroBatch]:
    """What every batch of `engine.data.batches.batches` is to its optimiser step, in order."""
    ranges, together = bounds(samples, options.batch_size), options.accumulate
    made: list[MicroBatch] = []
    for begin in range(0, len(ranges), together):
        group = ranges[begin : begin + together]
        total = group[-1][1] - group[0][0]
        made.extend(
            MicroBatch(
                step=begin // together,
                first=place == 0,
                last=place == len(group) - 1,
                share=(stop - start) / total,
            )
            for place, (start, stop) in enumerate(group)
        )
    return made
