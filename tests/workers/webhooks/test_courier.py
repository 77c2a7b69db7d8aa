"""From the end of a job to a receiver's door, in real time."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from persistence.records import DeliveryRecord
from persistence.webhooks import deliveries, subscriptions
from persistence.webhooks.announcements import announce
from tests.workers.webhooks.receiver import Receiver, receiver, status
from tests.workers.worker_world import WorkerWorld, wait_until
from workers.webhooks.courier import Courier, deliver_due, forget_old_deliveries


@pytest.fixture
def server() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[WorkerWorld]:
    world = WorkerWorld(
        tmp_path,
        database_url,
        webhook_allowed_networks="127.0.0.0/8",
        webhook_timeout_seconds=5.0,
        webhook_poll_seconds=0.05,
    )
    yield world
    world.database.dispose()


def subscribe(world: WorkerWorld, url: str) -> str:
    with world.database.session() as session:
        return subscriptions.add(
            session, tenant_id=world.tenant_id, url=url, event_types=(), description=""
        ).secret


def statuses(world: WorkerWorld) -> list[str]:
    with world.database.session(read_only=True) as session:
        return [row.status for row in session.query(DeliveryRecord).order_by(DeliveryRecord.id)]


def test_a_job_ends_and_its_owner_hears_of_it(world: WorkerWorld, server: Receiver) -> None:
    secret = subscribe(world, server.url)
    job_id = world.enqueue()
    courier = Courier(world.database, world.settings)
    courier.start()
    try:
        assert world.supervisor("tell").run(job_id) == "succeeded"
        wait_until(lambda: statuses(world) == ["delivered"])
    finally:
        courier.stop()
    assert not courier.is_alive()
    ((headers, body),) = server.got
    message = Webhook(secret).verify(body, headers)
    assert message["type"] == "job.succeeded"
    assert message["data"]["id"] == job_id


def test_a_failure_is_tried_again_with_the_same_id_and_body(
    world: WorkerWorld, server: Receiver
) -> None:
    secret = subscribe(world, server.url)
    server.answers = [status(500), status(204)]
    with world.database.session() as session:
        announce(session, world.tenant_id, "job.failed", {"id": "job_1"})
    assert deliver_due(world.database, world.settings) == 1
    assert deliver_due(world.database, world.settings) == 0  # not due yet
    with world.database.session() as session:
        row = session.query(DeliveryRecord).one()
        deliveries.redeliver(row, row.created_at)
    assert deliver_due(world.database, world.settings) == 1
    assert statuses(world) == ["delivered"]
    (first, body), (second, again) = server.got
    assert body == again
    assert first["webhook-id"] == second["webhook-id"]
    Webhook(secret).verify(again, second)


def test_a_slow_receiver_holds_up_nobody(world: WorkerWorld, server: Receiver) -> None:
    gate = threading.Event()

    def wait(request: object) -> None:
        gate.wait(20)
        status(204)(request)  # type: ignore[arg-type]

    subscribe(world, server.url)
    with world.database.session() as session:
        for number in range(8):
            announce(session, world.tenant_id, "job.succeeded", {"id": str(number)})
    server.answers = [wait]
    thread = threading.Thread(target=deliver_due, args=(world.database, world.settings))
    thread.start()
    try:
        wait_until(lambda: statuses(world).count("delivered") == 7)
        assert deliver_due(world.database, world.settings) == 0  # the eighth is held
    finally:
        gate.set()
        thread.join(20)
    assert statuses(world) == ["delivered"] * 8
    assert sorted(json.loads(body)["data"]["id"] for _, body in server.got) == list("01234567")


def test_a_receiver_outside_the_allowed_networks_is_never_called(
    world: WorkerWorld, server: Receiver
) -> None:
    subscribe(world, server.url)
    with world.database.session() as session:
        announce(session, world.tenant_id, "job.succeeded", {})
    strict = world.settings.model_copy(update={"webhook_allowed_networks": ""})
    assert deliver_due(world.database, strict) == 1
    assert server.got == []
    with world.database.session(read_only=True) as session:
        row = session.query(DeliveryRecord).one()
        (attempt,) = deliveries.attempts_of(session, [row])[row.id]
    assert "may not call" in attempt.error


def test_deliveries_are_kept_as_long_as_the_settings_say(
    world: WorkerWorld, server: Receiver
) -> None:
    subscribe(world, server.url)
    with world.database.session() as session:
        announce(session, world.tenant_id, "job.succeeded", {})
    deliver_due(world.database, world.settings)
    assert forget_old_deliveries(world.database, world.settings) == 0
    short = world.settings.model_copy(update={"webhook_log_days": 1e-9})
    assert forget_old_deliveries(world.database, short) == 1
