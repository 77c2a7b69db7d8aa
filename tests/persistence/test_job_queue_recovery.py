"""Expired leases, lost pokes and the outbox, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from persistence.job_queue import (
    Reconciled,
    database_time,
    finish,
    mark_sent,
    reconcile,
    release,
    renew,
    request_cancel,
    unsent,
)
from persistence.records import JobRecord, ModelRecord, OutboxRecord
from tests import services
from tests.persistence.queue_world import World, open_world


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with open_world(database_url) as world:
        yield world


def pass_time(
    world: World, seconds: float, max_attempts: int = 3, requeue_after_seconds: float = 60
) -> Reconciled:
    with world.database.session() as session:
        return reconcile(
            session,
            database_time(session) + timedelta(seconds=seconds),
            max_attempts=max_attempts,
            requeue_after_seconds=requeue_after_seconds,
        )


def send_all(world: World) -> list[str]:
    with world.database.session() as session:
        pokes = unsent(session, 100)
        mark_sent(session, pokes)
    return [poke.job_id for poke in pokes]


def test_a_live_lease_is_left_alone_and_a_renewed_one_lives_longer(world: World) -> None:
    job_id = world.enqueue()
    send_all(world)
    held = world.claim(job_id, lease_seconds=10)
    assert not pass_time(world, 5)
    with world.database.session() as session:
        renew(session, held, 100)
    assert not pass_time(world, 50)
    assert world.job(job_id).status == "running"


def test_an_expired_lease_requeues_until_the_attempts_are_used_up(world: World) -> None:
    job_id = world.enqueue(type="inspect")
    for attempt in (1, 2):
        dead = world.claim(job_id, lease_seconds=10)
        assert dead.attempt == attempt
        assert pass_time(world, 11).requeued == [job_id]
        job = world.job(job_id)
        assert (job.status, job.lease_owner, job.lease_expires_at) == ("queued", None, None)
        assert send_all(world)
        with world.database.session() as session:
            assert not finish(session, dead, "succeeded")
    world.claim(job_id, lease_seconds=10)
    assert pass_time(world, 11).failed == [job_id]
    job = world.job(job_id)
    assert job.status == "failed"
    assert job.error is not None
    assert job.error["type"] == "attempts-exhausted"
    assert set(job.error) == {"type", "title", "hint", "where", "retryable"}
    assert world.events(job_id) == [
        "queued",
        *["started", "lease_expired"] * 3,
        "failed",
    ]
    with world.database.session(read_only=True) as session:
        assert session.query(ModelRecord).one().status == "rejected"
    assert not pass_time(world, 1000)


def test_a_job_given_back_by_a_stopping_worker_keeps_its_attempts(world: World) -> None:
    job_id = world.enqueue()
    for _ in range(5):
        held = world.claim(job_id, lease_seconds=10)
        with world.database.session() as session:
            assert release(session, held, "the worker stops")
    world.claim(job_id, lease_seconds=10)
    assert pass_time(world, 11, max_attempts=2).requeued == [job_id]
    assert world.job(job_id).attempt == 6


def test_a_canceling_job_without_a_worker_is_canceled(world: World) -> None:
    job_id = world.enqueue()
    world.claim(job_id, lease_seconds=10)
    with world.database.session() as session:
        job = session.get(JobRecord, job_id)
        assert job is not None
        request_cancel(session, job)
    assert not pass_time(world, 5)
    assert pass_time(world, 11).canceled == [job_id]
    assert world.job(job_id).status == "canceled"


def test_a_queued_job_is_poked_again_at_growing_intervals(world: World) -> None:
    job_id = world.enqueue()
    assert not pass_time(world, 1000), "the first poke was not sent yet"
    assert send_all(world) == [job_id]
    assert not pass_time(world, 59)
    assert pass_time(world, 61).poked == [job_id]
    assert not pass_time(world, 1000), "the second poke was not sent yet"
    assert send_all(world) == [job_id]
    assert not pass_time(world, 119)
    assert pass_time(world, 121).poked == [job_id]
    with world.database.session() as session:
        session.query(OutboxRecord).delete()
    assert pass_time(world, 0).poked == [job_id], "no poke at all"


def test_sent_pokes_of_jobs_that_run_are_forgotten(world: World) -> None:
    waiting, running = world.enqueue(), world.enqueue()
    send_all(world)
    world.claim(running)
    pass_time(world, 0)
    with world.database.session() as session:
        assert [row.job_id for row in session.query(OutboxRecord)] == [waiting]


def test_an_unmarked_poke_is_sent_again(world: World) -> None:
    """The dispatcher died between publishing and committing."""
    job_id = world.enqueue()

    def publish_and_die() -> None:
        with world.database.session() as session:
            mark_sent(session, unsent(session, 10))
            raise ConnectionError

    with pytest.raises(ConnectionError):
        publish_and_die()
    assert send_all(world) == [job_id]
    assert send_all(world) == []


def test_two_dispatchers_do_not_wait_for_each_other_on_postgresql(
    postgres_service: services.Service,
) -> None:
    with services.postgres_database(postgres_service) as url, open_world(url) as world:
        world.enqueue()
        with world.database.session() as first, world.database.session() as second:
            assert len(unsent(first, 10)) == 1
            assert unsent(second, 10) == []


def test_two_reconcilers_requeue_a_job_once_on_postgresql(
    postgres_service: services.Service,
) -> None:
    with services.postgres_database(postgres_service) as url, open_world(url) as world:
        job_id = world.enqueue()
        world.claim(job_id, lease_seconds=0.001)
        with world.database.session() as first, world.database.session() as second:
            later = database_time(first) + timedelta(seconds=1)
            assert reconcile(first, later, max_attempts=3).requeued == [job_id]
            assert reconcile(second, later, max_attempts=3).requeued == []
        assert world.events(job_id) == ["queued", "started", "lease_expired"]
