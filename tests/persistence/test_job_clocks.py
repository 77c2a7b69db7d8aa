"""Waiting, running and deadlines, each counted by itself, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from persistence.artifact_store import StoredBlob
from persistence.job_queue import (
    Claim,
    Reconciled,
    add_artifact,
    claim_next,
    database_time,
    finish,
    forget_checkpoints,
    reconcile,
    release,
    request_cancel,
)
from persistence.records import ArtifactRecord, JobRecord
from tests.persistence.queue_world import World, open_world


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with open_world(database_url) as world:
        yield world


def now(world: World) -> datetime:
    with world.database.session(read_only=True) as session:
        return database_time(session)


def age(world: World, job_id: str, seconds: float) -> None:
    """Let the present wait or attempt have begun so much earlier."""
    shift = timedelta(seconds=seconds)
    with world.database.session() as session:
        job = session.get_one(JobRecord, job_id)
        expires_at = None if job.expires_at is None else job.expires_at - shift
        session.execute(
            update(JobRecord)
            .where(JobRecord.id == job_id)
            .values(clock_started_at=job.clock_started_at - shift, expires_at=expires_at)
        )


def pass_time(world: World, seconds: float) -> Reconciled:
    with world.database.session() as session:
        later = database_time(session) + timedelta(seconds=seconds)
        return reconcile(session, later, max_attempts=3, requeue_after_seconds=60)


def give_back(world: World, held: Claim) -> None:
    with world.database.session() as session:
        assert release(session, held, "test")


def error(world: World, job_id: str) -> dict[str, Any]:
    found = world.job(job_id).error
    assert found is not None
    assert set(found) == {"type", "title", "hint", "where", "retryable"}
    return found


def test_waits_and_attempts_add_up_separately(world: World) -> None:
    job_id = world.enqueue()
    for waited, ran in ((100, 7), (20, 3)):
        age(world, job_id, waited)
        held = world.claim(job_id)
        age(world, job_id, ran)
        if ran == 7:
            give_back(world, held)
    assert held.ran_seconds == pytest.approx(7, abs=3)
    assert world.job(job_id).waited_seconds == pytest.approx(120, abs=5)
    with world.database.session() as session:
        assert finish(session, held, "succeeded")
    job = world.job(job_id)
    assert job.waited_seconds == pytest.approx(120, abs=5)
    assert job.ran_seconds == pytest.approx(10, abs=5)


def test_a_job_that_waited_too_long_in_all_its_waits_expires(world: World) -> None:
    job_id = world.enqueue(max_wait_seconds=100)
    assert not pass_time(world, 50).expired
    age(world, job_id, 60)
    give_back(world, world.claim(job_id))
    assert not pass_time(world, 30).expired
    assert pass_time(world, 45).expired == [job_id]
    job = world.job(job_id)
    assert (job.status, job.expires_at is not None) == ("expired", True)
    assert error(world, job_id)["type"] == "wait-limit-reached"
    assert "100 seconds" in error(world, job_id)["title"]
    assert world.events(job_id)[-1] == "expired"
    assert not pass_time(world, 1000)


def test_a_waiting_job_expires_at_its_deadline_and_a_claim_never_takes_it(world: World) -> None:
    soon = now(world) + timedelta(seconds=30)
    late, later = (world.enqueue(deadline=soon) for _ in range(2))
    assert not pass_time(world, 20).expired
    with world.database.session() as session:
        session.execute(update(JobRecord).values(deadline=now(world) - timedelta(seconds=1)))
        assert claim_next(session, "cpu", "worker", 60) is None
    assert {world.job(one).status for one in (late, later)} == {"expired"}
    assert error(world, late)["type"] == "deadline-passed"
    third = world.enqueue(deadline=now(world) + timedelta(seconds=30))
    assert pass_time(world, 31).expired == [third]


def test_a_dead_worker_does_not_carry_a_job_past_its_deadline_or_its_time(world: World) -> None:
    deadline = now(world) + timedelta(seconds=15)
    late = world.enqueue(deadline=deadline)
    spent = world.enqueue(max_run_seconds=8)
    fine = world.enqueue(max_run_seconds=80)
    for job_id in (late, spent, fine):
        world.claim(job_id, lease_seconds=10)
    done = pass_time(world, 20)
    assert (done.expired, done.failed, done.requeued) == ([late], [spent], [fine])
    assert error(world, late)["type"] == "deadline-passed"
    assert error(world, spent)["type"] == "job-timeout"
    job = world.job(fine)
    assert job.ran_seconds == pytest.approx(10, abs=2), "until the lease ended, not longer"


def test_a_canceled_job_is_canceled_though_its_deadline_passed(world: World) -> None:
    job_id = world.enqueue(deadline=now(world) + timedelta(seconds=5))
    world.claim(job_id, lease_seconds=10)
    with world.database.session() as session:
        request_cancel(session, session.get_one(JobRecord, job_id))
    assert pass_time(world, 20).canceled == [job_id]


def test_the_claim_knows_the_deadline_by_the_databases_clock(world: World) -> None:
    job_id = world.enqueue(deadline=now(world) + timedelta(seconds=500), max_run_seconds=9)
    held = world.claim(job_id)
    assert held.deadline_in == pytest.approx(500, abs=5)
    assert held.max_run_seconds == 9


def test_checkpoints_of_ended_jobs_are_kept_for_a_time(world: World) -> None:
    kept = {}
    for outcome in ("expired", "canceled", "succeeded"):
        job_id = world.enqueue()
        held = world.claim(job_id)
        blob = StoredBlob(sha256="1" * 64, bytes=3)
        with world.database.session() as session:
            for kind in ("checkpoint", "training_state"):
                add_artifact(session, held, kind=kind, name=kind, media_type="x/y", blob=blob)
            assert finish(session, held, outcome)  # type: ignore[arg-type]
        kept[outcome] = len(world.job(job_id).artifacts)
    assert kept == {"expired": 2, "canceled": 2, "succeeded": 0}
    running = world.claim(world.enqueue())
    with world.database.session() as session:
        blob = StoredBlob(sha256="2" * 64, bytes=3)
        add_artifact(session, running, kind="checkpoint", name="c", media_type="x/y", blob=blob)
        assert forget_checkpoints(session, database_time(session) - timedelta(days=1)) == 0
        assert forget_checkpoints(session, database_time(session) + timedelta(days=1)) == 4
        assert [row.job_id for row in session.query(ArtifactRecord)] == [running.job_id]
