"""What is told, when it is told again, and when no more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from persistence.job_queue import finish, release, request_cancel
from persistence.records import (
    DeliveryAttemptRecord,
    DeliveryRecord,
    JobRecord,
    ModelRecord,
    TenantRecord,
    WebhookRecord,
)
from persistence.webhooks import deliveries, subscriptions
from persistence.webhooks.announcements import announce
from persistence.webhooks.deliveries import RETRY_SECONDS, Attempt
from tests.persistence.queue_world import World, open_world

NOW = datetime(2030, 1, 1, tzinfo=UTC)
TAKEN = Attempt(204, "", "", 3)
REFUSED = Attempt(500, "the answer was 500", "", 3)


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with open_world(database_url) as world:
        yield world


def subscribe(world: World, *event_types: str, tenant_id: str | None = None) -> str:
    with world.database.session() as session:
        return subscriptions.add(
            session,
            tenant_id=tenant_id or world.tenant_id,
            url="https://example.com/hook",
            event_types=event_types,
            description="",
        ).id


def told(world: World) -> list[tuple[str, dict[str, object]]]:
    with world.database.session(read_only=True) as session:
        rows = session.query(DeliveryRecord).order_by(DeliveryRecord.id).all()
    return [(row.event_type, json.loads(row.payload)["data"]) for row in rows]


def one(world: World) -> tuple[DeliveryRecord, WebhookRecord]:
    with world.database.session(read_only=True) as session:
        delivery = session.query(DeliveryRecord).one()
        return delivery, session.get_one(WebhookRecord, delivery.webhook_id)


def note(world: World, attempt: Attempt, now: datetime = NOW) -> None:
    delivery, _ = one(world)
    with world.database.session() as session:
        deliveries.note_attempt(session, delivery.id, attempt, now)


def pending(world: World) -> None:
    with world.database.session() as session:
        announce(session, world.tenant_id, "job.succeeded", {})


def take(world: World, now: datetime, hold: float = 60) -> list[deliveries.Due]:
    with world.database.session() as session:
        return deliveries.take_due(session, now, limit=10, hold_seconds=hold)


@pytest.mark.parametrize("status", ["succeeded", "failed", "canceled"])
def test_the_end_of_a_job_is_told_with_its_transaction(world: World, status: str) -> None:
    subscribe(world)
    job_id = world.enqueue(name="a job", metadata={"team": "vision"})
    held = world.claim(job_id)
    assert told(world) == []
    error = {"type": "oops", "title": "Oops", "hint": "", "where": "", "retryable": False}
    with world.database.session() as session:
        finish(session, held, status, error=error if status == "failed" else None)  # type: ignore[arg-type]
        session.rollback()
    assert told(world) == []
    with world.database.session() as session:
        finish(session, held, status, error=error if status == "failed" else None)  # type: ignore[arg-type]
    ((event_type, data),) = told(world)
    assert event_type == f"job.{status}"
    job = world.job(job_id)
    assert job.finished_at is not None
    assert data == {
        "id": job_id,
        "type": "compress",
        "status": status,
        "name": "a job",
        "model_id": world.model_id,
        "dataset_id": None,
        "metadata": {"team": "vision"},
        "error": error if status == "failed" else None,
        "created_at": job.created_at.isoformat().replace("+00:00", "Z"),
        "started_at": job.started_at.isoformat().replace("+00:00", "Z") if job.started_at else None,
        "finished_at": job.finished_at.isoformat().replace("+00:00", "Z"),
    }


def test_a_canceled_job_is_told_once_whoever_ends_it(world: World) -> None:
    subscribe(world)
    waiting, running = world.enqueue(), world.enqueue()
    held = world.claim(running)
    with world.database.session() as session:
        request_cancel(session, session.get_one(JobRecord, waiting))
        request_cancel(session, session.get_one(JobRecord, running))
    with world.database.session() as session:
        assert release(session, held, "the worker stops")
    assert [(kind, data["id"]) for kind, data in told(world)] == [
        ("job.canceled", waiting),
        ("job.canceled", running),
    ]


def test_a_job_given_back_is_not_told(world: World) -> None:
    subscribe(world)
    held = world.claim(world.enqueue())
    with world.database.session() as session:
        assert release(session, held, "the worker stops")
    assert told(world) == []


def test_an_inspection_is_told_as_its_models(world: World) -> None:
    subscribe(world)
    for status in ("succeeded", "failed", "canceled"):
        held = world.claim(world.enqueue(type="inspect"))
        with world.database.session() as session:
            error = {"type": "not-supported"} if status == "failed" else None
            finish(session, held, status, error=error, result={})  # type: ignore[arg-type]
    assert [(kind, data["status"]) for kind, data in told(world)] == [
        ("model.ready", "ready"),
        ("model.rejected", "rejected"),
    ]


def test_trials_are_told_by_their_search(world: World) -> None:
    subscribe(world)
    search = world.enqueue(type="search")
    held = world.claim(world.enqueue(parent_id=search, trial_number=0))
    with world.database.session() as session:
        finish(session, held, "succeeded")
    assert told(world) == []


def test_only_who_asked_is_told(world: World) -> None:
    with world.database.session() as session:
        stranger = TenantRecord(name="stranger")
        session.add(stranger)
        session.flush()
    subscribe(world, tenant_id=stranger.id)
    subscribe(world, "job.failed")
    wanted = [subscribe(world), subscribe(world, "job.failed", "job.succeeded")]
    off, gone = subscribe(world), subscribe(world)
    with world.database.session() as session:
        session.get_one(WebhookRecord, off).enabled = False
        subscriptions.delete(session.get_one(WebhookRecord, gone))
    pending(world)
    with world.database.session(read_only=True) as session:
        found = {row.webhook_id for row in session.query(DeliveryRecord)}
    assert found == set(wanted)


def test_taken_once_and_again_when_its_sender_died(world: World) -> None:
    subscribe(world)
    pending(world)
    (due,) = take(world, NOW, hold=60)
    assert take(world, NOW + timedelta(seconds=59)) == []
    (again,) = take(world, NOW + timedelta(seconds=60))
    assert again == due


def test_the_pauses_of_the_standard(world: World) -> None:
    """5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h after the first attempt."""
    subscribe(world)
    pending(world)
    hours = 3600
    pauses = [5, 300, 1800, 2 * hours, 5 * hours, 10 * hours, 14 * hours, 20 * hours, 24 * hours]
    now = NOW
    for number, pause in enumerate(pauses, start=1):
        note(world, REFUSED, now)
        delivery, webhook = one(world)
        assert delivery.status == "pending"
        assert delivery.attempts == number
        assert delivery.next_attempt_at == now + timedelta(seconds=pause)
        assert webhook.failing_since == NOW
        now = delivery.next_attempt_at
    note(world, REFUSED, now)
    delivery, webhook = one(world)
    assert (delivery.status, delivery.next_attempt_at) == ("failed", None)
    assert webhook.enabled
    with world.database.session(read_only=True) as session:
        rows = session.query(DeliveryAttemptRecord).order_by(DeliveryAttemptRecord.id).all()
    assert [row.number for row in rows] == list(range(1, 11))
    assert {row.error for row in rows} == {"the answer was 500"}


def test_a_receiver_may_ask_for_more_time_but_not_for_ever(world: World) -> None:
    subscribe(world)
    pending(world)
    note(world, Attempt(429, "busy", "", 1, retry_after_seconds=120))
    assert one(world)[0].next_attempt_at == NOW + timedelta(seconds=120)
    note(world, Attempt(429, "busy", "", 1, retry_after_seconds=1e9))
    assert one(world)[0].next_attempt_at == NOW + timedelta(seconds=RETRY_SECONDS[-1])


def test_success_ends_it(world: World) -> None:
    subscribe(world)
    pending(world)
    note(world, REFUSED)
    note(world, TAKEN, NOW + timedelta(seconds=5))
    delivery, webhook = one(world)
    assert delivery.status == "delivered"
    assert delivery.delivered_at == NOW + timedelta(seconds=5)
    assert webhook.failing_since is None
    note(world, REFUSED, NOW + timedelta(seconds=6))  # a second sender, too late
    assert one(world)[0].status == "delivered"


@pytest.mark.parametrize("how", ["gone", "five days"])
def test_a_dead_receiver_is_switched_off(world: World, how: str) -> None:
    subscribe(world)
    pending(world)
    if how == "gone":
        note(world, Attempt(410, "the answer was 410", "", 1))
    else:
        note(world, REFUSED)
        note(world, REFUSED, NOW + timedelta(days=4, hours=23))
        assert one(world)[1].enabled
        note(world, REFUSED, NOW + timedelta(days=5))
    delivery, webhook = one(world)
    assert not webhook.enabled
    assert delivery.status == "failed"


def test_what_waits_for_a_webhook_that_is_off_fails(world: World) -> None:
    webhook_id = subscribe(world)
    pending(world)
    with world.database.session() as session:
        session.get_one(WebhookRecord, webhook_id).enabled = False
    assert take(world, NOW) == []
    assert one(world)[0].status == "failed"


def test_rotation_signs_twice_until_the_grace_is_over(world: World) -> None:
    webhook_id = subscribe(world)
    pending(world)
    with world.database.session() as session:
        record = session.get_one(WebhookRecord, webhook_id)
        old = record.secret
        subscriptions.rotate(record, previous_expires_at=NOW + timedelta(hours=1))
        new = record.secret
    assert take(world, NOW, hold=0)[0].secrets == (new, old)
    assert take(world, NOW + timedelta(hours=1), hold=0)[0].secrets == (new,)


def test_old_deliveries_are_forgotten_and_pending_ones_never(world: World) -> None:
    subscribe(world)
    pending(world)
    later = NOW + timedelta(days=31)
    with world.database.session() as session:
        assert deliveries.forget_old(session, later) == 0
    note(world, TAKEN)
    with world.database.session() as session:
        assert deliveries.forget_old(session, later) == 1
    assert told(world) == []
    with world.database.session(read_only=True) as session:
        assert session.query(DeliveryAttemptRecord).count() == 0
        assert session.query(ModelRecord).count() == 1
