"""Latency of the original and the compact model, measured so that they can be compared.

Clock frequency, caches and neighbours drift over seconds, so the two models take turns within
one process: each sees the same conditions, and a slow spell hits both. Every model is warmed up
first (the TorchScript optimiser rewrites a graph during its first calls). On a GPU each call is
followed by a synchronisation, because launching is not finishing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from secateur.report import Latency

from engine.calling import call, copies
from engine.errors import EngineError
from engine.structure import at_batch_size, samples_in, tensors_in
from engine.torchscript.program import Program

_WARM_UP = 4
_LEAST_RUNS = 5


@dataclass(frozen=True)
class LatencyComparison:
    """Percentiles of both models, by batch size, and what could not be measured."""

    original: list[Latency]
    compact: list[Latency]
    warnings: list[str]


def compare_latency(
    original: Program,
    compact: Program,
    inputs: Sequence[Any],
    *,
    batch_sizes: Sequence[int],
    runs: int,
    seconds: float = 60.0,
) -> LatencyComparison:
    """Measure both models at each batch size, turn by turn.

    A batch size that the model refuses is replaced by the example's own, with a warning.

    Args:
        original: the upload, freshly loaded: a graph that has run holds what the optimiser fitted
            to the shapes of that run.
        compact: the result, freshly loaded too.
        inputs: the example, repeated along dimension 0 to each batch size.
        batch_sizes: samples per call.
        runs: calls of each model.
        seconds: budget for one batch size; where it runs out, fewer calls (5 or more) are made,
            and the result says how many.
    """
    models = (original, compact)
    own = samples_in(inputs)
    comparison = LatencyComparison([], [], [])
    measured: set[int] = set()
    for size in batch_sizes:
        batch, label = at_batch_size(inputs, size), size
        refusal = _refusal(models, batch)
        if refusal:
            comparison.warnings.append(
                f"latency at batch size {size} could not be measured ({refusal}); it was measured "
                f"at the example's own batch size {own}"
            )
            batch, label = tuple(inputs), own
        if label in measured:
            continue
        measured.add(label)
        first, second = _alternate(models, batch, runs, seconds)
        comparison.original.append(_percentiles(first, label))
        comparison.compact.append(_percentiles(second, label))
    return comparison


def _refusal(models: Sequence[Program], batch: Sequence[Any]) -> str:
    with torch.inference_mode():
        for model in models:
            try:
                call(model.module, batch, where="recipe.measure.batch_sizes")
            except EngineError as error:
                return error.title
    return ""


def _alternate(
    models: Sequence[Program], batch: Sequence[Any], runs: int, seconds: float
) -> tuple[list[float], list[float]]:
    times: tuple[list[float], list[float]] = ([], [])
    deadline = time.perf_counter() + seconds
    with torch.inference_mode():
        for _ in range(_WARM_UP):
            for model in models:
                _timed(model.module, batch)
            if time.perf_counter() > deadline:
                break
        for run in range(runs):
            # Who goes first changes, so that neither always runs on the other's warm caches.
            for which in (0, 1) if run % 2 == 0 else (1, 0):
                times[which].append(_timed(models[which].module, batch))
            if run + 1 >= _LEAST_RUNS and time.perf_counter() > deadline:
                break
    return times


def _timed(module: Callable[..., Any], batch: Sequence[Any]) -> float:
    # A program may change its arguments in place; every run starts from the same values.
    arguments = copies(batch)
    _synchronize(batch)
    start = time.perf_counter()
    module(*arguments)
    _synchronize(batch)
    return (time.perf_counter() - start) * 1000


def _synchronize(batch: Sequence[Any]) -> None:
    for device in {tensor.device for tensor in tensors_in(batch) if tensor.is_cuda}:
        torch.cuda.synchronize(device)


def _percentiles(times: Sequence[float], batch_size: int) -> Latency:
    p50, p90, p99 = (float(value) for value in np.percentile(times, [50, 90, 99]))
    return Latency(batch_size=batch_size, p50=p50, p90=p90, p99=p99, runs=len(times))
