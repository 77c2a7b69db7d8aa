"""A search in a real database, with trials that end as a test says."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from secateur.recipe import Recipe
from secateur.report import Accuracy, Latency, Report

from persistence.artifact_store import store_file
from persistence.job_queue import add_artifact, claim, finish
from persistence.records import JobRecord
from tests.reporting.samples import small_report
from tests.workers.worker_world import WorkerWorld
from workers.search.coordinator import Step, advance

AMOUNT = "stages.0.allocation.amount"
SPACE: dict[str, Any] = {AMOUNT: {"low": 0.1, "high": 0.9}}


def searching(**search: Any) -> dict[str, Any]:
    recipe = {
        "inputs": [{"shape": [1, 1, 8, 8]}],
        "stages": [{"stage": "prune", "allocation": {"amount": 0.5}}],
        "search": {"space": SPACE, "objectives": ["accuracy", "macs"], "trials": 3} | search,
    }
    return Recipe.model_validate(recipe).as_written


def report_of(top1: float, macs: int) -> Report:
    whole = small_report()
    measured = {"macs": macs, "accuracy": Accuracy(correct=round(top1 * 100), total=100, top1=top1),
        "latency_ms": [Latency(batch_size=1, p50=macs / 1e5, p90=2, p99=3, runs=5)]}  # fmt: skip
    return whole.model_copy(update={"after": whole.after.model_copy(update=measured)})


class SearchWorld(WorkerWorld):
    """Trials are claimed and ended by hand; the steps of the search are the real ones."""

    def search(self, **search: Any) -> str:
        return self.enqueue(type="search", recipe=searching(**search))

    def step(self, search_id: str) -> Step:
        return advance(self.database, self.store, search_id)

    def trials(self, search_id: str) -> list[JobRecord]:
        with self.database.session(read_only=True) as session:
            rows = session.query(JobRecord).filter_by(parent_id=search_id)
            found = rows.order_by(JobRecord.trial_number).all()
            for one in found:
                _ = one.artifacts
            return found

    def live(self, search_id: str) -> list[JobRecord]:
        return [one for one in self.trials(search_id) if one.status in ("queued", "running")]

    def point(self, trial: JobRecord) -> dict[str, Any]:
        assert trial.trial is not None
        found: dict[str, Any] = trial.trial["parameters"]
        return found

    def end_trial(
        self,
        trial: JobRecord,
        top1: float = 0.9,
        macs: int = 1000,
        *,
        error: Mapping[str, Any] | None = None,
        report: bool = True,
    ) -> None:
        """As a worker does: claim, store, and end in one transaction."""
        model = store_file(self.store, io.BytesIO(f"model {trial.id}".encode()))
        written = report_of(top1, macs).model_dump_json().encode()
        blob = store_file(self.store, io.BytesIO(written))
        with self.database.session() as session:
            held = claim(session, trial.id, "worker-a", 60)
            assert held is not None
        with self.database.session() as session:
            if report:
                for kind, file in (("model", model), ("report_json", blob)):
                    add_artifact(
                        session, held, kind=kind, name=kind, media_type="a/b", blob=file
                    )  # fmt: skip
            status = "succeeded" if error is None else "failed"
            assert finish(session, held, status, error=error)  # type: ignore[arg-type]

    def end_by(self, trial: JobRecord) -> None:
        """Less pruned is more accurate and slower: every trial is on the front."""
        amount = self.point(trial)[AMOUNT]
        self.end_trial(trial, top1=1 - amount / 2, macs=int(100_000 * (1 - amount)))

    def run_to_the_end(self, search_id: str) -> None:
        while self.step(search_id) == "waiting":
            for trial in self.live(search_id):
                self.end_by(trial)
