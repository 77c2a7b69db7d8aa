"""The end of a search: its report, and the model of the trial that was chosen.

The model is the trial's own file: both jobs name the same blob, and nothing is copied.
"""

from __future__ import annotations

import io
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from secateur.recipe_exports import OtherFormat
from secateur.recipe_search import Search
from secateur.report_search import SearchReport

from persistence.artifact_store import ArtifactStore, StoredBlob, store_file
from persistence.job_queue.completion import ArtifactFile
from persistence.records import JobRecord
from workers import endings
from workers.search.outcome import read_report
from workers.search.report import (
    Ended,
    compare,
    search_report,
    short_result,
    trial_report,
)

_TAKEN_OVER = ("model", "masks", "recipe", *get_args(OtherFormat))
"""Files of the chosen trial that become the search's own."""
_drawing = threading.Lock()
"""Matplotlib keeps its settings in the process, and a worker has several threads."""


@dataclass(frozen=True)
class Closing:
    """How a search ends.

    Attributes:
        status: `failed` where no trial is acceptable.
        files: stored already; they become its artifacts.
        error: of a failed search.
        result: the job's short result.
    """

    status: Literal["succeeded", "failed"]
    files: Sequence[ArtifactFile]
    error: Mapping[str, Any] | None
    result: Mapping[str, Any] | None


def close(
    recipe: dict[str, Any], search: Search, ended: Sequence[Ended], store: ArtifactStore
) -> Closing:
    """Compare the trials, write the report, and store it."""
    trials = [trial_report(one) for one in ended]
    standing = compare(search, trials)
    chosen = next((one for one in ended if one.record.trial_number == standing.chosen), None)
    winner = None
    if chosen is not None:
        written = _files_by_kind(chosen.record).get("report_json")
        winner = None if written is None else read_report(store, written.blob.sha256)
    measured = [one.outcome.before for one in ended if one.outcome.before]
    before = chosen.outcome.before if chosen is not None else next(iter(measured), {})
    report = search_report(recipe, search, trials, standing, before=before, winner=winner)
    files = _written(report, store)
    if chosen is None:
        return Closing("failed", files, _error(report), short_result(report))
    own = _files_by_kind(chosen.record)
    files += [own[kind] for kind in _TAKEN_OVER if kind in own]
    return Closing("succeeded", files, None, short_result(report))


def _files_by_kind(job: JobRecord) -> dict[str, ArtifactFile]:
    return {
        one.kind: ArtifactFile(
            kind=one.kind,
            name=one.name,
            media_type=one.media_type,
            blob=StoredBlob(sha256=one.sha256, bytes=one.bytes),
        )
        for one in job.artifacts
    }


def _written(report: SearchReport, store: ArtifactStore) -> list[ArtifactFile]:
    # templates and Matplotlib are only loaded where a search ends
    from reporting import search_html  # noqa: PLC0415
    from reporting.front_plot import front_figure  # noqa: PLC0415

    with _drawing:
        page = search_html.render(report)
        plot = front_figure(report)
    texts = [
        ("report_json", "report.json", "application/json", report.model_dump_json(indent=2)),
        ("report_html", "report.html", "text/html", page),
    ]
    if plot is not None:
        texts.append(("plot", "front.svg", "image/svg+xml", plot))
    return [
        ArtifactFile(kind, name, media_type, store_file(store, io.BytesIO(text.encode())))
        for kind, name, media_type, text in texts
    ]


def _error(report: SearchReport) -> dict[str, Any] | None:
    """Why the search has no result: the commonest reason of its trials."""
    states = Counter(trial.state for trial in report.trials)
    reason, times = Counter(trial.reason for trial in report.trials).most_common(1)[0]
    common = f"the most frequent reason ({times} of {len(report.trials)}): {reason}"
    count = f"None of the {len(report.trials)} trials"
    if states["infeasible"]:
        bounded = bool(report.recipe["search"]["bounds"])
        return endings.failed(
            "search-infeasible",
            f"{count} keeps to the bounds and constraints; {common}",
            "Loosen the bound, widen the space, or try more values. The report lists the trials.",
            where="recipe.search.bounds" if bounded else "recipe.constraints",
        ).error
    return endings.failed(
        "search-failed",
        f"{count} succeeded; {common}",
        "Look at one of the trials, `GET /v1/jobs?parent_id=` and the id of the search: each says "
        "what to do.",
        where="recipe.search.space",
    ).error
