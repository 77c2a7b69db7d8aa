"""Measurements of one state of the model."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from secateur.report import Latency, Measurement

from engine.measure.macs import count_macs
from engine.measure.size import memory_bytes, nonzero_count, parameter_count, weights_of
from engine.pipeline.setup import Workbench
from engine.torchscript.program import Program
from engine.training.evaluation import evaluate


def measure(
    bench: Workbench, program: Program, *, file_bytes: int, runs: Program | None = None
) -> Measurement:
    """Size, MACs, loss and metrics; no latency.

    Args:
        bench: example and dataset.
        program: what to measure.
        file_bytes: size of its file.
        runs: computes in its place, where its file computes otherwise than it does.
    """
    return Measurement(**_values(bench, program, file_bytes, runs), latency_ms=[])


def with_latency(measurement: Measurement, latencies: Sequence[Latency]) -> Measurement:
    """The same measurement with its latency."""
    return measurement.model_copy(update={"latency_ms": list(latencies)})


def finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """The same with null for what is no finite number."""
    return {name: value if isfinite(value) else None for name, value in metrics.items()}


def _values(
    bench: Workbench, program: Program, file_bytes: int, runs: Program | None
) -> dict[str, Any]:
    weights = weights_of(program)
    validation = bench.validation
    started = time.monotonic()
    evaluation = (
        None
        if validation is None
        # A twin: what runs may write to its buffers.
        else evaluate(
            program.twin() if runs is None else runs,
            validation,
            device=bench.job.device,
            example_batch=bench.example_batch,
            objective=bench.objective,
        )
    )
    elapsed = (time.monotonic() - started) * 1000
    return {
        "file_bytes": file_bytes,
        "memory_bytes": memory_bytes(program),
        "parameters": parameter_count(weights),
        "nonzero_parameters": nonzero_count(weights),
        "macs": count_macs(program, bench.inputs),
        "loss": None if evaluation is None else evaluation.loss,
        "accuracy": None if evaluation is None else evaluation.top1,
        "metrics": {} if evaluation is None else finite(evaluation.metrics),
        "evaluation_ms": None if evaluation is None else elapsed,
    }
