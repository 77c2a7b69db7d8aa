"""Carry out the exports of a recipe, once the TorchScript result is verified.

Each runs in a process of its own with a time limit, in a folder of its own that is gone afterwards.
An export that cannot be made, crashes, hangs, or computes otherwise fails by itself, with its
reason in the report; the job and the other exports go on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from secateur.recipe_exports import Export, format_of, options_of
from secateur.report import ExportReport, Report
from torch import Tensor

from engine.exports.isolation import NotMade, run_isolated
from engine.exports.packing import pack
from engine.exports.registry import EXPORTERS, Exporter
from engine.exports.request import Exported, ExportRequest
from engine.job import Listener, ProducedArtifact
from engine.structure import map_tensors

SECONDS = 600.0
"""Of one export: converting, running and comparing."""
_OCTETS, _ZIP = "application/octet-stream", "application/zip"


@dataclass(frozen=True)
class Result:
    """What is exported.

    Attributes:
        model: the verified TorchScript file, for a CPU.
        inputs: example arguments.
        reload_error: of the file in a fresh process.
        reload_tolerance: that it was held against.
        program_file, encodings, lowering: as in `ExportRequest`.
    """

    model: Path
    inputs: Sequence[Any]
    reload_error: float
    reload_tolerance: float
    program_file: Path | None = None
    encodings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    lowering: Mapping[str, Any] | None = None


def export_all(
    exports: Sequence[Export],
    result: Result,
    *,
    workdir: Path,
    threads: int,
    listener: Listener,
    first_index: int,
    seconds: float = SECONDS,
) -> tuple[list[ExportReport], list[ProducedArtifact]]:
    """Write every format that the recipe names.

    Args:
        exports: of the recipe.
        result: what is exported.
        workdir: where the files end up.
        threads: that each may use.
        listener: hears each as a stage.
        first_index: of these stages.
        seconds: that each may take.

    Returns:
        A report of each, in the order of the recipe, and the files of those that were made.
    """
    reports: list[ExportReport] = []
    artifacts: list[ProducedArtifact] = []
    for index, export in enumerate(exports):
        name = format_of(export)
        if name == "torchscript":
            reports.append(_of_the_model(result))
            continue
        stage = f"export {name}"
        listener.stage_started(first_index + index, stage)
        report, artifact = _Export(
            EXPORTERS[name], options_of(export), result, workdir, threads, listener, seconds
        ).carry_out()
        ended = stage if report.state == "made" else f"{stage} failed"
        listener.stage_finished(first_index + index, ended, None)
        reports.append(report)
        if artifact is not None:
            artifacts.append(artifact)
    return reports, artifacts


def with_exports(report: Report, exports: list[ExportReport]) -> Report:
    """The report with its exports, those that failed among the warnings."""
    failed = [f"the {one.format} export failed: {one.reason}" for one in exports if one.reason]
    verdict = report.verdict.model_copy(update={"warnings": [*report.verdict.warnings, *failed]})
    return report.model_copy(update={"exports": exports, "verdict": verdict})


def _of_the_model(result: Result) -> ExportReport:
    return ExportReport(
        format="torchscript",
        state="made",
        artifact="model",
        file_bytes=result.model.stat().st_size,
        verified_by="torch.jit.load in a fresh process",
        relative_error=result.reload_error,
        tolerance=result.reload_tolerance,
    )


@dataclass(frozen=True)
class _Export:
    """One export."""

    exporter: Exporter
    options: Mapping[str, Any]
    result: Result
    workdir: Path
    threads: int
    listener: Listener
    seconds: float

    def carry_out(self) -> tuple[ExportReport, ProducedArtifact | None]:
        missing = self.exporter.missing
        if missing:
            return self._failed(
                f"this worker has no {' and no '.join(missing)}; "
                "install `secateur-server[exports]` on it"
            ), None
        with TemporaryDirectory(dir=self.workdir, prefix="export-") as name:
            try:
                made = self._run(Path(name))
                if isinstance(made, NotMade):
                    self._tell(made)
                    return self._failed(made.reason), None
                return self._judged(made)
            except OSError as error:  # the disk is full, the process could not start
                return self._failed(f"{type(error).__name__}: {error.strerror or error}"), None

    def _run(self, scratch: Path) -> Exported | NotMade:
        folder = scratch / "made"
        folder.mkdir()
        request = ExportRequest(
            format=self.exporter.name,
            options=self.options,
            model=self.result.model.resolve(),
            folder=folder.resolve(),
            inputs=tuple(map_tensors(value, Tensor.cpu) for value in self.result.inputs),
            seconds=self.seconds,
            program_file=self.result.program_file,
            encodings=self.result.encodings,
            lowering=self.result.lowering,
        )
        return run_isolated(self.exporter.module, request, scratch=scratch, threads=self.threads)

    def _judged(self, made: Exported) -> tuple[ExportReport, ProducedArtifact | None]:
        if not made.relative_error <= made.tolerance:
            error = made.relative_error
            told = f"by {error:.2g} of the largest output" if math.isfinite(error) else "in kind"
            reason = f"its outputs differ {told}, and the tolerance is {made.tolerance:.2g}"
            scheme = "" if self.result.lowering is None else self.result.lowering["scheme"]
            if scheme and (self.exporter.name, scheme) != ("onnx", "static_int8"):
                reason += f"; the result computes by `{scheme}`, this format in floating point"
            return self._failed(reason, made), None
        target = self.workdir / self.exporter.file
        if made.path.is_dir():
            target = target.with_name(f"{target.name}.zip")
            pack(made.path, made.path.with_suffix(".packed"))
            made.path.with_suffix(".packed").replace(target)
        else:
            made.path.replace(target)
        report = ExportReport(
            format=self.exporter.name,
            state="made",
            artifact=self.exporter.name,
            file_bytes=target.stat().st_size,
            **_measured(made),
        )
        media_type = _ZIP if target.suffix == ".zip" else _OCTETS
        return report, ProducedArtifact(self.exporter.name, target, media_type)

    def _tell(self, why: NotMade) -> None:
        if why.printed:
            self.listener.log(f"the {self.exporter.name} export failed", printed=why.printed)

    def _failed(self, reason: str, made: Exported | None = None) -> ExportReport:
        return ExportReport(
            format=self.exporter.name,
            state="failed",
            reason=reason,
            **({} if made is None else _measured(made)),
        )


def _measured(made: Exported) -> dict[str, Any]:
    batch = None if made.any_batch is None else "any" if made.any_batch else "fixed"
    return {
        "verified_by": made.verified_by,
        "relative_error": made.relative_error if math.isfinite(made.relative_error) else None,
        "tolerance": made.tolerance,
        "batch": batch,
        "batch_sizes": list(made.batch_sizes),
        "notes": list(made.notes),
    }
