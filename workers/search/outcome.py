"""What became of a trial: its quantities, and whether it is acceptable."""

from __future__ import annotations

import sys
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from secateur.recipe_objective import METRICS
from secateur.recipe_search import Search
from secateur.report import Measurement, Report

from persistence.artifact_store import ArtifactStore, BlobDamaged
from persistence.records import JobRecord

_LARGEST_REPORT = 64 << 20
State = Literal["succeeded", "infeasible", "failed", "canceled"]


class Outcome(BaseModel):
    """Kept beside the trial in the database.

    Attributes:
        state: `infeasible` where a bound or a constraint is broken.
        values: quantities of the result, by the names objectives have; empty without a report.
        before: the same of the upload.
        reason: why it is not acceptable.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    state: State
    values: dict[str, float] = {}
    before: dict[str, float] = {}
    reason: str = ""


def outcome_of(search: Search, trial: JobRecord, store: ArtifactStore) -> Outcome:
    """The outcome of a trial that has ended; reads its report.

    Raises:
        OSError: the store does not answer.
    """
    title = str((trial.error or {}).get("title", ""))
    report = _report(trial, store)
    if trial.status == "canceled":
        return Outcome(state="canceled", reason="it was canceled")
    if report is None:
        reason = title or f"the trial is {trial.status} and its report is gone"
        return Outcome(state="failed", reason=reason)
    values, before = quantities(report.after), quantities(report.before)
    missing = next((name for name in search.objectives if name not in values), None)
    if missing is not None:
        reason = f"its report has no finite `{missing}`"
        return Outcome(state="failed", values=values, before=before, reason=reason)
    broken = title if trial.status == "failed" else search.beyond(values)
    return Outcome(
        state="infeasible" if broken else "succeeded",
        values=values,
        before=before,
        reason=broken or "",
    )


def quantities(measured: Measurement) -> dict[str, float]:
    """What objectives and bounds can speak of, as far as it was measured and is finite."""
    found: dict[str, float | None] = {
        **{name: value for name, value in measured.metrics.items() if name in METRICS},
        "accuracy": None if measured.accuracy is None else measured.accuracy.top1,
        "loss": measured.loss,
        "macs": measured.macs,
        "params": measured.nonzero_parameters,
        "file_bytes": measured.file_bytes,
        "latency_ms": measured.latency_ms[0].p50 if measured.latency_ms else None,
    }
    return {
        name: float(value)
        for name, value in found.items()
        if value is not None and abs(value) <= sys.float_info.max
    }


def _report(trial: JobRecord, store: ArtifactStore) -> Report | None:
    """The trial's report; None where it made none, or one that cannot be read."""
    for artifact in trial.artifacts:
        if artifact.kind == "report_json" and artifact.bytes <= _LARGEST_REPORT:
            return read_report(store, artifact.sha256)
    return None


def read_report(store: ArtifactStore, sha256: str) -> Report | None:
    """A compress job's report, which a runner wrote: nothing in it is taken on trust."""
    try:
        with store.open(sha256) as source:
            content: Any = source.read()
        return Report.model_validate_json(content)
    except (FileNotFoundError, BlobDamaged, ValidationError):
        return None
