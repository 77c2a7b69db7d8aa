"""The steps of a search against real databases: repeated, interrupted, at once, called off."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from secateur.recipe import Recipe
from secateur.report_search import SearchReport
from sqlalchemy.exc import IntegrityError

from persistence.job_queue import (
    claim,
    database_time,
    mark_sent,
    reconcile,
    request_cancel,
    trials,
    unsent,
)  # fmt: skip
from persistence.records import JobRecord
from tests.workers.search.search_world import AMOUNT, SearchWorld
from workers.search import coordinator

ERROR = {"type": "model-raised", "title": "The model raised.", "hint": "", "where": "",
    "retryable": False}  # fmt: skip
UNMET = ERROR | {"type": "constraint-unmet", "title": "top-1 fell by 20.00%"}


@pytest.fixture
def world(tmp_path: Path, database_url: str) -> Iterator[SearchWorld]:
    world = SearchWorld(tmp_path, database_url)
    yield world
    world.database.dispose()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[SearchWorld]:
    """On SQLite alone, for what does not depend on the database."""
    world = SearchWorld(tmp_path)
    yield world
    world.database.dispose()


def report(world: SearchWorld, search_id: str) -> SearchReport:
    files = {one.kind: one for one in world.job(search_id).artifacts}
    path = world.store.path(files["report_json"].sha256)
    return SearchReport.model_validate_json(path.read_bytes())


def pokes(world: SearchWorld, job_id: str) -> int:
    with world.database.session() as session:
        return sum(poke.job_id == job_id for poke in unsent(session, 100))


def test_a_search_from_the_first_step_to_its_model(world: SearchWorld) -> None:
    search = world.search(trials=3, parallel=2)
    assert world.step(search) == "waiting"
    first, second = world.trials(search)
    assert (world.job(search).status, first.status) == ("running", "queued")
    assert (first.type, first.trial_number, second.trial_number) == ("compress", 0, 1)
    assert first.recipe is not None
    assert first.recipe["stages"][0]["allocation"]["amount"] == world.point(first)[AMOUNT]
    assert first.recipe["search"] is None
    assert pokes(world, first.id) == 1
    assert world.job(search).progress == {"current": 0, "total": 3, "unit": "trials"}

    world.end_trial(first, top1=0.9, macs=500)
    assert pokes(world, search) == 2  # that of its submission, and that of the trial's end
    assert world.step(search) == "waiting"
    assert [one.trial_number for one in world.live(search)] == [1, 2]
    assert world.job(search).progress == {"current": 1, "total": 3, "unit": "trials"}
    world.end_trial(second, top1=0.8, macs=300)
    third = world.trials(search)[2]
    world.end_trial(third, top1=0.7, macs=400)  # worse than the second in both
    assert world.step(search) == "ended"

    job = world.job(search)
    assert (job.status, job.progress, job.error) == ("succeeded", None, None)
    found = report(world, search)
    assert [trial.state for trial in found.trials] == ["succeeded"] * 3
    assert (found.front, found.best) == ([0, 1], {"accuracy": 0, "macs": 1})
    # Two points are both ends of the front: the first objective decides.
    assert (found.knee, found.chosen, found.chosen_by) == (0, 0, "knee")
    assert found.trials[1].values["latency_ms"] == pytest.approx(0.003)
    assert job.result is not None
    assert job.result["chosen"]["job_id"] == first.id
    files = {one.kind: one for one in job.artifacts}
    assert sorted(files) == ["model", "plot", "report_html", "report_json"]
    [own] = [one for one in world.trials(search)[0].artifacts if one.kind == "model"]
    assert files["model"].sha256 == own.sha256
    assert files["model"].id != own.id
    assert found.trials[0].artifacts["model"] == own.id
    types = world.event_types(search)
    assert types[:4] == ["queued", "started", "trial_started", "trial_started"]
    assert types.count("trial_finished") == 3
    assert types[-1] == "succeeded"


def test_a_step_too_many_changes_nothing(world: SearchWorld) -> None:
    search = world.search(trials=2, parallel=1)
    for _ in range(3):
        assert world.step(search) == "waiting"
    assert len(world.trials(search)) == 1
    events = world.event_types(search)
    assert world.step(search) == "waiting"
    assert world.event_types(search) == events
    world.run_to_the_end(search)
    assert len(world.trials(search)) == 2
    assert world.step(search) == "not a search"  # it has ended


def test_steps_at_the_same_time_start_each_trial_once(world: SearchWorld) -> None:
    search = world.search(trials=8, parallel=4)
    failures: list[BaseException] = []

    def carry_on() -> None:
        try:
            for _ in range(4):
                world.step(search)
        except BaseException as error:
            failures.append(error)

    def end_some(place: int) -> None:
        try:
            for trial in world.live(search)[place::2]:
                world.end_by(trial)
                world.step(search)
        except BaseException as error:
            failures.append(error)

    world.step(search)
    for _ in range(2):
        threads = [threading.Thread(target=carry_on) for _ in range(2)]
        threads += [threading.Thread(target=end_some, args=(place,)) for place in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    world.run_to_the_end(search)
    assert failures == []
    assert world.job(search).status == "succeeded"
    assert [one.trial_number for one in world.trials(search)] == list(range(8))
    assert world.event_types(search).count("trial_started") == 8
    assert world.event_types(search).count("trial_finished") == 8
    assert [trial.number for trial in report(world, search).trials] == list(range(8))


def test_a_step_that_dies_before_it_commits_has_done_nothing(
    world: SearchWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = world.search(trials=3, parallel=3)

    class Killed(BaseException):
        pass

    def dies(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(trials, "show_progress", dies)  # after the trials were written
        with pytest.raises(Killed):
            world.step(search)
    assert world.trials(search) == []
    assert world.job(search).status == "queued"
    assert world.step(search) == "waiting"
    for trial in world.trials(search):
        world.end_by(trial)
    with monkeypatch.context() as patch:
        patch.setattr(trials, "end", dies)
        with pytest.raises(Killed):
            world.step(search)
    assert (world.job(search).status, world.job(search).artifacts) == ("running", [])
    assert "trial_finished" not in world.event_types(search)
    assert world.step(search) == "ended"
    assert world.job(search).status == "succeeded"


_KILLED = """
import os, sys
from pathlib import Path
from persistence.artifact_store import LocalArtifactStore
from persistence.database import Database
from persistence.job_queue import trials
from workers.search.coordinator import advance
trials.show_progress = lambda *_: os.kill(os.getpid(), 9)
advance(Database(sys.argv[1]), LocalArtifactStore(Path(sys.argv[2])), sys.argv[3])
"""


def test_kill_in_the_middle_of_a_step(world: SearchWorld) -> None:
    search = world.search(trials=2, parallel=2)
    folder = str(world.settings.resolved_artifact_dir)
    command = [sys.executable, "-c", _KILLED, world.settings.resolved_database_url, folder, search]
    assert subprocess.run(command, check=False).returncode == -9
    assert world.trials(search) == []
    assert world.step(search) == "waiting"
    assert len(world.trials(search)) == 2


def test_the_same_history_gives_the_same_trials(tmp_path: Path) -> None:
    points = []
    for name, steps in (("one", 1), ("two", 3)):
        world = SearchWorld(tmp_path / name)
        search = world.search(trials=6, parallel=1)
        for _ in range(6):
            for _ in range(steps):
                world.step(search)
            [trial] = world.live(search)
            world.end_by(trial)
        world.step(search)
        points.append([world.point(one) for one in world.trials(search)])
        world.database.dispose()
    assert points[0] == points[1]
    assert len({point[AMOUNT] for point in points[0]}) == 6


def test_failed_trials_are_rows_of_the_table(world: SearchWorld) -> None:
    search = world.search(trials=3, parallel=3, objectives=["accuracy"])
    world.step(search)
    raised, fine, gone = world.trials(search)
    world.end_trial(raised, error=ERROR, report=False)
    world.end_trial(fine, top1=0.8)
    world.end_trial(gone, report=False)  # succeeded, and its report is not there
    assert world.step(search) == "ended"
    found = report(world, search)
    assert [trial.state for trial in found.trials] == ["failed", "succeeded", "failed"]
    assert found.trials[0].reason == "The model raised."
    assert "its report is gone" in found.trials[2].reason
    assert (found.chosen, found.chosen_by, found.knee) == (1, "accuracy", None)
    assert any("most of the 3 trials came to nothing" in one for one in found.warnings)
    assert world.job(search).status == "succeeded"


def test_a_search_whose_trials_all_fail_fails_with_the_reason(world: SearchWorld) -> None:
    search = world.search(trials=2, parallel=2)
    world.step(search)
    for trial in world.trials(search):
        world.end_trial(trial, error=ERROR, report=False)
    assert world.step(search) == "ended"
    error = world.error(search)
    assert error["type"] == "search-failed"
    assert "None of the 2 trials succeeded" in error["title"]
    assert "(2 of 2): The model raised." in error["title"]
    assert sorted(one.kind for one in world.job(search).artifacts) == ["report_html", "report_json"]
    assert report(world, search).provenance is None


def test_what_breaks_a_bound_or_a_constraint_is_never_chosen(world: SearchWorld) -> None:
    search = world.search(trials=4, parallel=4, bounds={"accuracy": 0.75, "macs": 900})
    world.step(search)
    inaccurate, large, unmet, fine = world.trials(search)
    world.end_trial(inaccurate, top1=0.7, macs=100)
    world.end_trial(large, top1=0.99, macs=901)
    world.end_trial(unmet, top1=0.98, macs=50, error=UNMET)
    world.end_trial(fine, top1=0.75, macs=900)
    world.step(search)
    found = report(world, search)
    assert [trial.state for trial in found.trials] == ["infeasible"] * 3 + ["succeeded"]
    assert found.trials[0].reason == "`accuracy` is 0.7, at least 0.75 is asked"
    assert found.trials[1].reason == "`macs` is 901, at most 900 is asked"
    assert found.trials[2].reason == "top-1 fell by 20.00%"
    assert found.trials[2].values["macs"] == 50
    assert (found.front, found.chosen) == ([3], 3)


def test_a_search_without_an_acceptable_trial(small: SearchWorld) -> None:
    search = small.search(trials=1, bounds={"latency_ms": 0.001})
    small.step(search)
    small.end_trial(small.trials(search)[0])
    small.step(search)
    error = small.error(search)
    assert (error["type"], error["where"]) == ("search-infeasible", "recipe.search.bounds")
    assert "model" not in {one.kind for one in small.job(search).artifacts}


def test_cancel_takes_the_trials_along(world: SearchWorld) -> None:
    search = world.search(trials=5, parallel=2)
    world.step(search)
    running, waiting = world.trials(search)
    with world.database.session() as session:
        held = claim(session, running.id, "worker-a", 60)
        assert held is not None
    world.cancel(search)
    assert world.status(search) == "canceling"
    assert (world.status(running.id), world.status(waiting.id)) == ("canceling", "canceled")
    assert world.step(search) == "waiting"
    assert len(world.trials(search)) == 2
    with world.database.session() as session:
        trials_end = coordinator.settle
        trials_end(session, running.id, "canceled")
    assert pokes(world, search) > 0
    assert world.step(search) == "ended"
    assert world.status(search) == "canceled"
    assert world.event_types(search)[-1] == "canceled"


def test_cancel_before_and_between_trials(world: SearchWorld) -> None:
    early = world.search()
    world.cancel(early)
    assert world.status(early) == "canceled"
    assert world.step(early) == "not a search"
    search = world.search(trials=3, parallel=1)
    world.step(search)
    world.end_by(world.trials(search)[0])
    world.cancel(search)  # nothing is under way
    assert world.status(search) == "canceled"


def test_cancel_while_trials_end(world: SearchWorld) -> None:
    search = world.search(trials=6, parallel=6)
    world.step(search)
    failures: list[BaseException] = []

    def end_all() -> None:
        for trial in world.trials(search):
            try:
                world.end_by(trial)
            except AssertionError:
                continue  # canceled before it was claimed
            except BaseException as error:
                failures.append(error)

    thread = threading.Thread(target=end_all)
    thread.start()
    world.cancel(search)
    thread.join(60)
    world.step(search)
    assert failures == []
    assert world.status(search) == "canceled"
    assert all(one.status in ("succeeded", "canceled") for one in world.trials(search))


def test_one_trial_canceled_by_hand_is_one_less(small: SearchWorld) -> None:
    search = small.search(trials=2, parallel=2)
    small.step(search)
    first, second = small.trials(search)
    small.cancel(first.id)
    small.end_by(second)
    small.step(search)
    found = report(small, search)
    assert [trial.state for trial in found.trials] == ["canceled", "succeeded"]
    assert found.chosen == 1


def test_the_reconciler_pokes_a_search_whose_poke_was_lost(world: SearchWorld) -> None:
    search = world.search(trials=2, parallel=1)

    def reconciled(hours: float) -> list[str]:
        with world.database.session() as session:
            now = database_time(session) + timedelta(hours=hours)
            return reconcile(session, now, requeue_after_seconds=60).poked

    def lose_pokes() -> None:
        with world.database.session() as session:
            mark_sent(session, unsent(session, 100))

    world.step(search)
    lose_pokes()
    [trial] = world.trials(search)
    with world.database.session() as session:
        assert claim(session, trial.id, "worker-a", 24 * 3600) is not None
    assert reconciled(1) == []  # its trial is under way, and there is nothing to do
    with world.database.session() as session:
        coordinator.settle(session, trial.id, "failed", error=ERROR)
    lose_pokes()
    assert reconciled(0) == []  # it may still be on its way
    assert reconciled(1) == [search]
    assert reconciled(1) == []  # that one is on its way
    assert world.step(search) == "waiting"
    assert pokes(world, search) == 1
    assert len(world.trials(search)) == 2


def test_no_worker_claims_a_search(world: SearchWorld) -> None:
    search = world.search()
    with world.database.session() as session:
        assert claim(session, search, "worker-a", 60) is None
    assert world.supervisor().run(search) == "search advanced"
    assert world.status(search) == "running"
    assert world.job(search).lease_owner is None


def test_a_number_is_given_once(world: SearchWorld) -> None:
    search = world.search()
    world.step(search)

    def start_again() -> None:
        with world.database.session() as session:
            record = session.get_one(JobRecord, search)
            trials.start_trial(session, record, 0, recipe={}, parameters={}, sampler={})

    with pytest.raises(IntegrityError):
        start_again()


def test_a_small_space_ends_when_it_is_tried_out(small: SearchWorld) -> None:
    search = small.search(space={AMOUNT: [0.25, 0.5, 0.75]}, trials=10, parallel=2)
    small.run_to_the_end(search)
    assert sorted(small.point(one)[AMOUNT] for one in small.trials(search)) == [0.25, 0.5, 0.75]
    found = report(small, search)
    assert "the space has only 3 points; all were tried" in found.warnings
    assert small.status(search) == "succeeded"


def test_values_that_make_no_valid_recipe_are_a_failed_trial(
    small: SearchWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What was let in by an older version of the product may be refused by a newer one.
    search = small.search(space={AMOUNT: [0.5, 0.75]}, trials=2, sampler="grid", parallel=1)
    ordinary = Recipe.model_validate

    def stricter(recipe: dict[str, Any]) -> Recipe:
        if "search" not in recipe and recipe["stages"][0]["allocation"]["amount"] == 0.5:
            return ordinary(recipe | {"seed": -1})
        return ordinary(recipe)

    monkeypatch.setattr(coordinator.Recipe, "model_validate", stricter)
    assert small.step(search) == "waiting"
    invalid, rest = small.trials(search)
    assert (invalid.status, rest.status) == ("failed", "queued")
    assert invalid.error is not None
    assert invalid.error["type"] == "recipe-invalid"
    assert small.job(search).progress == {"current": 1, "total": 2, "unit": "trials"}
    small.end_by(rest)
    small.step(search)
    found = report(small, search)
    assert [trial.state for trial in found.trials] == ["failed", "succeeded"]
    assert "seed: Input should be greater" in found.trials[0].reason


def test_a_fault_of_our_own_ends_the_search(
    small: SearchWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = small.search(trials=2, parallel=2)
    small.step(search)
    small.end_by(small.trials(search)[0])

    def breaks(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(coordinator, "outcome_of", breaks)
    assert small.step(search) == "ended"
    assert small.error(search)["type"] == "internal-error"
    assert small.trials(search)[1].status == "canceled"


def test_request_cancel_of_an_ended_search_changes_nothing(small: SearchWorld) -> None:
    search = small.search(trials=1)
    small.run_to_the_end(search)
    with small.database.session() as session:
        request_cancel(session, session.get_one(JobRecord, search))
    assert small.status(search) == "succeeded"
