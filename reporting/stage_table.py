"""The stage table: size, loss, accuracy and time of the model in every state it went through."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.report import Measurement, MetricReport, Report

from reporting import formatting
from reporting.formatting import MISSING
from reporting.metric import shown

_STATES = {
    "permanent": "made permanent",
    "compacted": "compacted",
    "finetuned": "fine-tuned",
    "recalibrated": "recalibrated",
}
_FORMS = {"mask_beside_weight": "masked: masks beside weights", "zeroed_slices": "masked: zeros"}


@dataclass(frozen=True)
class StageRow:
    """One state. `metric` is the one that decides, `took` the time of the step, `evaluated` that of
    the evaluation within."""

    step: str
    state: str
    file: str
    memory: str
    parameters: str
    nonzero: str
    macs: str
    loss: str
    correct: str
    accuracy: str
    metric: str
    evaluated: str
    removed: str
    took: str


def stage_rows(report: Report) -> list[StageRow]:
    """Original, then for each step what was masked, where that was measured, and what it made."""
    decides = report.objective.decides
    rows = [_row("before", "original", report.before, decides)]
    for stage in report.stages:
        if stage.masked is not None:
            rows.append(
                _row(
                    stage.label,
                    _FORMS[stage.masked.form],
                    stage.masked,
                    decides,
                    took=formatting.elapsed(stage.masked.elapsed_ms),
                )
            )
        rows.append(
            _row(
                stage.label,
                _STATES.get(stage.state or "", MISSING),
                stage,
                decides,
                removed=formatting.integer(stage.removed) if stage.removed else "",
                took=formatting.elapsed(stage.elapsed_ms),
            )
        )
    return rows


def _row(
    step: str,
    state: str,
    measured: Measurement,
    decides: MetricReport,
    *,
    removed: str = "",
    took: str = "",
) -> StageRow:
    accuracy, elapsed = measured.accuracy, measured.evaluation_ms
    return StageRow(
        step=step,
        state=state,
        file=formatting.size(measured.file_bytes),
        memory=MISSING if measured.memory_bytes is None else formatting.size(measured.memory_bytes),
        parameters=formatting.short(measured.parameters),
        nonzero=formatting.short(measured.nonzero_parameters),
        macs=formatting.short(measured.macs),
        loss=formatting.loss(measured.loss),
        correct=MISSING if accuracy is None else f"{accuracy.correct:,} / {accuracy.total:,}",
        accuracy=MISSING if accuracy is None else formatting.percent(accuracy.top1, 2),
        metric=shown(decides, measured.deciding, accuracy),
        evaluated=MISSING if elapsed is None else formatting.elapsed(elapsed),
        removed=removed,
        took=took,
    )
