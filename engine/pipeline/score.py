"""Run a score job: scan every layer, and report what each loses.

A checkpoint follows every point, so that a job that starts from one measures the remaining points
alone. No model is made: the upload is never written to.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from secateur.recipe import ScoreStage
from secateur.report_score import LayerScan, Scan, ScanPoint, ScoreReport

from engine.data.splits import Split
from engine.errors import CriterionDoesNotFit
from engine.job import JobInput, Listener, ProducedArtifact
from engine.pipeline.device_memory import out_of_memory_explained
from engine.pipeline.durable import NotWritten, full_disk_explained
from engine.pipeline.report import fingerprint_of, provenance, write_recipe
from engine.pipeline.scanned import Scanned, samples_of, scanned
from engine.pipeline.score_checkpoint import ScanState, Whole, load_scan, save_scan
from engine.pipeline.scoring import in_stage_criterion
from engine.pipeline.setup import Workbench, prepare
from engine.scan.layers import ScannedLayer, forward_of
from engine.scan.measuring import Judge, Measured


@dataclass(frozen=True)
class ScoreResult:
    """What a score job produced."""

    artifacts: list[ProducedArtifact]
    report: ScoreReport


def score(job: JobInput, listener: Listener) -> ScoreResult:
    """Carry out a score job.

    Raises:
        EngineError: anything the user can act on.
    """
    with out_of_memory_explained(), full_disk_explained(job.workdir):
        return _Job(job, listener).run()


def short_result(report: ScoreReport) -> dict[str, Any]:
    """What the job itself shows: for each scan its layers, the most sensitive first."""
    return {
        "summary": report.summary,
        "warnings": report.warnings,
        "scans": [
            {
                "stage_index": scan.stage_index,
                "measure": scan.measure,
                "layers": [
                    {"name": layer.name, "sensitivity": layer.sensitivity}
                    for layer in by_sensitivity(scan)
                ],
            }
            for scan in report.scans
        ],
    }


def by_sensitivity(scan: Scan) -> list[LayerScan]:
    """The layers, the most sensitive first; what is not finite comes before all."""
    return sorted(
        scan.layers,
        key=lambda layer: -(float("inf") if layer.sensitivity is None else layer.sensitivity),
    )


class _Job:
    def __init__(self, job: JobInput, listener: Listener) -> None:
        self._job = job
        self._listener = listener
        self._checkpoint = job.workdir / "checkpoint.json"
        fingerprint = fingerprint_of(job)
        self._state = ScanState(fingerprint=fingerprint)
        if job.checkpoint is not None:
            self._state = load_scan(job.checkpoint, fingerprint=fingerprint)
            listener.log(
                "resumed from a checkpoint",
                finished_points=sum(len(points) for points in self._state.points.values()),
            )

    def run(self) -> ScoreResult:
        bench = prepare(self._job)
        scans = []
        scores: dict[str, torch.Tensor] = {}
        for index, stage in enumerate(bench.recipe.scans):
            label = f"scan {stage.granularity}s by {stage.criterion}"
            self._listener.stage_started(index, label)
            data = samples_of(bench, stage, index)
            try:
                found = scanned(bench, stage, index)
            except CriterionDoesNotFit as error:
                raise in_stage_criterion(error, f"recipe.stages.{index}") from error
            for layer in found.layers:
                scores[f"stages.{index}/{layer.name}"] = layer.scores.contiguous()
            scans.append(self._scan(bench, stage, index, found, data=data, label=label))
            self._listener.stage_finished(index, label, None)
        return self._write(bench, scans, scores)

    def _scan(
        self,
        bench: Workbench,
        stage: ScoreStage,
        index: int,
        found: Scanned,
        *,
        data: Split | tuple[Any, ...],
        label: str,
    ) -> Scan:
        intact = forward_of(bench.original)
        judge = Judge(
            intact,
            data,
            quantity=stage.measure,
            batch_size=stage.batch_size,
            example_batch=bench.example_batch,
            device=self._job.device,
            objective=bench.objective,
        )
        if index not in self._state.whole:
            before = judge.measure(intact) if stage.labelled else Measured()
            self._state.whole[index] = Whole(
                loss=before.loss, accuracy=before.accuracy, metric=before.metric
            )
        whole = self._state.whole[index]
        points = self._state.points.setdefault(index, [])
        wanted = [(layer, ratio) for layer in found.layers for ratio in stage.ratios]
        for layer, ratio in wanted[len(points) :]:
            point = _point(judge, layer, ratio, whole)
            points.append(point)
            self._tell(stage, layer, point, (len(points), len(wanted)), label)
        each = len(stage.ratios)
        return Scan(
            stage_index=index,
            granularity=stage.granularity,
            criterion=stage.criterion,
            measure=stage.measure,
            split=data.name if isinstance(data, Split) else "example",
            samples=judge.samples,
            ratios=list(stage.ratios),
            loss=whole.loss,
            accuracy=whole.accuracy,
            metric=whole.metric,
            layers=[
                _layer_scan(
                    stage,
                    layer,
                    points[each * number : each * (number + 1)],
                    whole,
                    rises=_rises(stage, bench),
                )
                for number, layer in enumerate(found.layers)
            ],
            frozen=found.frozen,
            elapsed_ms=sum(point.elapsed_ms for point in points),
        )

    def _tell(
        self,
        stage: ScoreStage,
        layer: ScannedLayer,
        point: ScanPoint,
        done: tuple[int, int],
        label: str,
    ) -> None:
        value = _quantity(stage, point)
        name = f"{layer.name} at {point.ratio:g}"
        if value is None:
            self._listener.log(f"{label}: the {stage.measure} of {name} is not finite")
        else:
            self._listener.metric(f"scan/{stage.measure}", value, done[0], name)
        self._listener.progress(*done, "points")
        try:
            save_scan(self._state, self._checkpoint)
        except NotWritten as error:
            self._listener.log(f"no checkpoint: {error.strerror}; the job goes on")
        else:
            self._listener.checkpoint(self._checkpoint)

    def _write(
        self, bench: Workbench, scans: list[Scan], scores: dict[str, torch.Tensor]
    ) -> ScoreResult:
        folder = self._job.workdir
        scores_file, report_file = folder / "scores.safetensors", folder / "report.json"
        save_file(scores, scores_file)
        report = ScoreReport(
            summary="; ".join(_summary(scan) for scan in scans),
            objective=bench.objective.report(),
            warnings=[*bench.remarks, *(warning for scan in scans for warning in _warnings(scan))],
            scans=scans,
            provenance=provenance(self._job, scores_file),
        )
        report_file.write_text(report.model_dump_json(indent=2))
        recipe_file = folder / "recipe.yaml"
        write_recipe(bench.recipe, recipe_file)
        return ScoreResult(
            artifacts=[
                _artifact("scores", scores_file, "application/octet-stream"),
                _artifact("report_json", report_file, "application/json"),
                _artifact("recipe", recipe_file, "application/yaml"),
            ],
            report=report,
        )


def _artifact(kind: Any, path: Path, media_type: str) -> ProducedArtifact:
    return ProducedArtifact(kind, path, media_type)


def _point(judge: Judge, layer: ScannedLayer, ratio: float, whole: Whole) -> ScanPoint:
    started = time.monotonic()
    count = layer.count(ratio)
    measured = (
        judge.measure(layer.without(count))
        if count
        # Nothing goes: the model is whole, and its drift from itself is none.
        else Measured(
            drift=0.0 if whole.loss is whole.metric is None else None,
            loss=whole.loss,
            accuracy=whole.accuracy,
            metric=whole.metric,
        )
    )
    return ScanPoint(
        ratio=ratio,
        removed=count,
        drift=measured.drift,
        loss=measured.loss,
        accuracy=measured.accuracy,
        metric=measured.metric,
        elapsed_ms=(time.monotonic() - started) * 1000,
    )


def _quantity(stage: ScoreStage, found: ScanPoint | Whole) -> float | None:
    """What the stage measures, of a point or of the whole model."""
    if stage.measure == "drift":
        return found.drift if isinstance(found, ScanPoint) else 0.0
    if stage.measure == "accuracy":
        return None if found.accuracy is None else found.accuracy.top1
    return found.loss if stage.measure == "loss" else found.metric


def _rises(stage: ScoreStage, bench: Workbench) -> bool:
    """Whether what is measured is better the higher it is."""
    if stage.measure == "metric":
        return bench.objective.decides.higher_is_better
    return stage.measure == "accuracy"


def _layer_scan(
    stage: ScoreStage,
    layer: ScannedLayer,
    points: list[ScanPoint],
    whole: Whole,
    *,
    rises: bool,
) -> LayerScan:
    known = _quantity(stage, whole)
    start = float("nan") if known is None else known
    values = [_quantity(stage, point) for point in points]
    finite = [value for value in values if value is not None]
    sign = -1 if rises else 1
    mean = sign * (sum(value - start for value in finite) / len(points))
    usable = len(finite) == len(points) and mean == mean  # noqa: PLR0124 - NaN differs from itself
    return LayerScan(
        name=layer.name,
        members=layer.members,
        units=layer.units,
        removable=layer.removable,
        sensitivity=mean if usable else None,
        points=points,
    )


def _summary(scan: Scan) -> str:
    ranked = by_sensitivity(scan)
    count = f"{len(ranked)} layer{'' if len(ranked) == 1 else 's'}"
    text = f"{count} scanned by {scan.measure} at {len(scan.ratios)} ratio"
    text += "" if len(scan.ratios) == 1 else "s"
    if len(ranked) == 1:
        return text
    return f"{text}: `{ranked[0].name}` is the most sensitive, `{ranked[-1].name}` the least"


def _warnings(scan: Scan) -> list[str]:
    held = [
        f"`{layer.name}` ({layer.removable} of {layer.units})"
        for layer in scan.layers
        if layer.removable < layer.units - 1
    ]
    none = [layer.name for layer in scan.layers if any(not point.removed for point in layer.points)]
    unknown = [layer.name for layer in scan.layers if layer.sensitivity is None]
    warnings = []
    if held:
        warnings.append(
            f"stage {scan.stage_index}: part of these layers must stay, so points past what may "
            f"go remove no more: {_listed(held)}"
        )
    if none:
        warnings.append(
            f"stage {scan.stage_index}: a ratio rounds to nothing in {_listed(_quoted(none))}; "
            "those points are the whole model"
        )
    if unknown:
        warnings.append(
            f"stage {scan.stage_index}: the {scan.measure} is not finite somewhere in "
            f"{_listed(_quoted(unknown))}"
        )
    return warnings


def _quoted(names: list[str]) -> list[str]:
    return [f"`{name}`" for name in names]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(names[:6]) + more
