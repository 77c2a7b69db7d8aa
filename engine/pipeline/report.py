"""Putting the report together."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path

import torch
import yaml
from secateur.recipe import PruneStage, Recipe
from secateur.report import Certificate, Measurement, Provenance, Report

from engine.job import JobInput
from engine.measure.curve import accuracy_curve
from engine.measure.latency import LatencyComparison
from engine.measure.macs import count_nonzero_macs
from engine.measure.size import histogram, layer_reports, weight_range, weights_of
from engine.patterns import broken_patterns, held_patterns
from engine.pipeline.checkpoint import JobState
from engine.pipeline.measuring import with_latency
from engine.pipeline.prune import merge_certificates
from engine.pipeline.setup import Workbench, file_sha256
from engine.pipeline.target_verdict import (
    exceeded,
    not_matched,
    timed_targets,
    with_final_times,
)
from engine.pipeline.verdict import broken_constraints, judge

_MEASURED = set(Measurement.model_fields)
_DISTRIBUTIONS = ("secateur", "secateur-server", "numpy", "safetensors")


def build_report(
    bench: Workbench, state: JobState, comparison: LatencyComparison, model: Path
) -> Report:
    """The report of a finished job.

    Args:
        bench: inputs of the job.
        state: after its last step.
        comparison: latency of both models.
        model: the saved result.
    """
    before = with_latency(state.before, comparison.original)
    # Every step was measured when it ended, so the last one tells what the result is like.
    last = Measurement.model_validate(state.reports[-1].model_dump(include=_MEASURED))
    last.file_bytes = model.stat().st_size
    after = with_latency(last, comparison.compact)
    broken = broken_constraints(bench.recipe, before, after, bench.objective.report().decides)
    dense, small = weights_of(bench.original), weights_of(state.program)
    limits = weight_range({**dense, **{f"after {name}": w for name, w in small.items()}})
    stages = [stage for stage in bench.recipe.stages if isinstance(stage, PruneStage)]
    patterns = held_patterns(stages, bench.original, state.program, state.masks, bench.inputs)
    targets = with_final_times(state.targets.values(), comparison.compact)
    warnings = [
        *not_matched(targets),
        *state.warnings,
        *broken_patterns(patterns),
        *comparison.warnings,
    ]
    return Report(
        before=before,
        objective=bench.objective.report(),
        stages=state.reports,
        after=after,
        certificate=_certificate(state),
        frozen=state.frozen,
        layers=layer_reports(dense, small),
        patterns=patterns,
        histogram_before=histogram(dense, limits),
        histogram_after=histogram(small, limits),
        weights=state.weights,
        curve=accuracy_curve(state.before, state.reports),
        training=state.curves,
        tickets=list(state.lottery.reports.values()),
        tournaments=list(state.tournaments.values()),
        targets=targets,
        quantization=state.quantization,
        baselines=state.baselines,
        tradeoff=state.tradeoff.report(bench.recipe.tradeoff),
        verdict=judge(
            before,
            after,
            broken,
            warnings,
            exceeded=list(exceeded(targets)),
            decides=bench.objective.report().decides,
            nonzero_macs=count_nonzero_macs(state.program, bench.inputs),
            quantization=state.quantization,
            prunes=bool(stages),
        ),
        provenance=provenance(bench.job, model),
    )


def provenance(job: JobInput, model: Path) -> Provenance:
    """What is needed to run the job again."""
    return Provenance(
        recipe=job.recipe.model_dump(mode="json"),
        seed=job.recipe.seed,
        model_sha256=file_sha256(job.model),
        dataset_sha256=None if job.dataset is None else file_sha256(job.dataset),
        result_sha256=file_sha256(model),
        loss_sha256=None if job.loss is None else file_sha256(job.loss),
        metric_sha256=None if job.metric is None else file_sha256(job.metric),
        versions={
            "python": platform.python_version(),
            # With its build (+cpu, +cu130), which the package's own metadata may leave out.
            "torch": torch.__version__,
            **{name: version(name) for name in _DISTRIBUTIONS},
        },
        device=torch.cuda.get_device_name() if job.device.startswith("cuda") else job.device,
        threads=job.threads,
        # Some CUDA kernels add in an order that changes from run to run,
        # and a measured time changes from run to run, with what was removed to reach it.
        deterministic=(job.device == "cpu" or job.recipe.deterministic)
        and not timed_targets(job.recipe),
    )


def fingerprint_of(job: JobInput) -> str:
    """Names what a checkpoint belongs to: the bytes of the job's files, and the recipe.

    Of the recipe, what differs from its defaults: fields that later versions add are not among it.
    How often a job notes where it stands is no part of what it does, and neither are the formats in
    which its result is written.
    """
    parts = [
        file_sha256(job.model),
        "" if job.dataset is None else file_sha256(job.dataset),
        *(
            "" if file is None else file_sha256(file)
            for file in (job.initial, job.loss, job.metric)
        ),
        # Not sorted: of the patterns of `allocation.layers` the first that matches decides.
        json.dumps(
            job.recipe.model_dump(
                mode="json", exclude_defaults=True, exclude={"checkpoint", "exports"}
            )
        ),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def write_recipe(recipe: Recipe, path: Path) -> None:
    """The recipe with every default written out."""
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False))


def _certificate(state: JobState) -> Certificate:
    """Of what was removed; quantisation follows it and tells its own error."""
    merged = merge_certificates(state.certificates, masked=bool(state.masks))
    detail = merged.detail
    if state.quantization:
        errors = ", ".join(f"{one.output_error:.2g}" for one in state.quantization)
        told = (
            "quantisation came after it and changed outputs on the example by at most "
            f"{errors} of the largest; the file gives the quantised weights to the bit"
        )
        detail = f"{detail}; {told}" if detail else told
    return merged.model_copy(update={"reloaded_in_fresh_process": True, "detail": detail})
