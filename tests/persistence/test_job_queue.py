"""Claims, fencing, cancel and endings of the queue, on SQLite and on PostgreSQL."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest

from persistence.artifact_store import StoredBlob
from persistence.job_queue import (
    Claim,
    RenewResult,
    add_artifact,
    append_event,
    append_log,
    append_metric,
    claim,
    enqueue,
    finish,
    finish_stage,
    release,
    renew,
    request_cancel,
    set_progress,
    start_stage,
    unsent,
)
from persistence.records import JobRecord, LogRecord, MetricRecord, ModelRecord, StageRecord
from tests.persistence.queue_world import World, open_world

ERROR = {
    "type": "model-raised",
    "title": "The model raised.",
    "hint": "Run it yourself.",
    "where": "forward",
    "retryable": False,
}


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with open_world(database_url) as world:
        yield world


def cancel(world: World, job_id: str) -> None:
    with world.database.session() as session:
        job = session.get(JobRecord, job_id)
        assert job is not None
        request_cancel(session, job)


def test_enqueue_writes_job_event_and_poke_in_the_callers_transaction(world: World) -> None:
    def enqueue_and_fail() -> None:
        with world.database.session() as session:
            enqueue(
                session,
                tenant_id=world.tenant_id,
                type="compress",
                model_id=world.model_id,
                dataset_id=None,
                recipe={"version": 1},
                device="auto",
                queue="cpu",
                name="",
                metadata={},
            )
            raise RuntimeError("the request failed after all")

    with pytest.raises(RuntimeError):
        enqueue_and_fail()
    with world.database.session() as session:
        assert session.query(JobRecord).count() == 0
        assert unsent(session, 10) == []
    job_id = world.enqueue(queue="gpu", name="mine", metadata={"team": "a"})
    job = world.job(job_id)
    assert (job.status, job.attempt, job.name, job.metadata_) == (
        "queued",
        0,
        "mine",
        {"team": "a"},
    )
    assert world.events(job_id) == ["queued"]
    with world.database.session() as session:
        assert [(poke.job_id, poke.queue) for poke in unsent(session, 10)] == [(job_id, "gpu")]


def test_a_claim_counts_the_attempt_and_only_the_first_gets_the_job(world: World) -> None:
    job_id = world.enqueue()
    held = world.claim(job_id)
    assert held.attempt == 1
    with world.database.session() as session:
        assert claim(session, job_id, "worker-b", 60) is None
        assert claim(session, "job_absent", "worker-b", 60) is None
    job = world.job(job_id)
    assert (job.status, job.lease_owner) == ("running", "worker-a")
    assert job.started_at is not None
    assert job.lease_expires_at is not None
    assert timedelta(seconds=50) < job.lease_expires_at - job.started_at <= timedelta(seconds=60)


def test_of_many_threads_exactly_one_claims(world: World) -> None:
    job_ids = [world.enqueue() for _ in range(5)]
    barrier = threading.Barrier(8)
    won: list[str] = []

    def race(owner: str) -> None:
        for job_id in job_ids:
            barrier.wait(timeout=30)
            with world.database.session() as session:
                held = claim(session, job_id, owner, 60)
            if held is not None:
                won.append(job_id)

    threads = [threading.Thread(target=race, args=(f"worker-{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sorted(won) == sorted(job_ids)
    assert {world.job(job_id).attempt for job_id in job_ids} == {1}


RACER = """
import sys
from persistence.database import Database
from persistence.job_queue import claim
database = Database(sys.argv[1])
with database.session(read_only=True):
    print("ready", flush=True)
sys.stdin.readline()
for job_id in sys.argv[2:]:
    with database.session() as session:
        if claim(session, job_id, "racer", 60) is not None:
            print(job_id)
"""


def test_of_several_processes_exactly_one_claims(world: World) -> None:
    job_ids = [world.enqueue() for _ in range(20)]
    url = world.database.engine.url.render_as_string(hide_password=False)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, url, *job_ids],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    won: list[str] = []
    for racer in racers:
        output, _ = racer.communicate(timeout=60)
        assert racer.returncode == 0
        won += output.split()
    assert sorted(won) == sorted(job_ids)


def requeue(world: World, held: Claim) -> None:
    with world.database.session() as session:
        assert release(session, held, "test")


def test_a_stale_token_changes_nothing(world: World) -> None:
    """The zombie: its lease was taken over, it does not know, and writes all it can."""
    job_id = world.enqueue()
    zombie = world.claim(job_id, "worker-a")
    requeue(world, zombie)
    heir = world.claim(job_id, "worker-b")
    before = (world.job(job_id).version, world.events(job_id))
    blob = StoredBlob(sha256="1" * 64, bytes=3)
    with world.database.session() as session:
        assert renew(session, zombie, 60) is RenewResult.LOST
        assert not append_event(session, zombie, "log", {})
        assert not append_metric(session, zombie, name="loss", value=1, step=1, stage="")
        assert not append_log(session, zombie, "late")
        assert not set_progress(session, zombie, {"current": 1}, event=True)
        assert not start_stage(session, zombie, 0, "prune")
        assert not finish_stage(session, zombie, 0, "prune", None)
        assert not add_artifact(
            session, zombie, kind="model", name="m", media_type="x/y", blob=blob
        )
        assert not release(session, zombie, "late")
        assert not finish(session, zombie, "succeeded", result={"late": True})
    job = world.job(job_id)
    assert (job.version, world.events(job_id)) == before
    assert (job.status, job.attempt, job.lease_owner) == ("running", 2, "worker-b")
    assert job.artifacts == []
    with world.database.session() as session:
        for record in (MetricRecord, LogRecord, StageRecord):
            assert session.query(record).count() == 0
        assert renew(session, heir, 60) is RenewResult.HELD
        assert finish(session, heir, "succeeded", result={"on": "time"})
    assert world.job(job_id).result == {"on": "time"}


def test_the_same_worker_with_an_older_attempt_is_stale_too(world: World) -> None:
    job_id = world.enqueue()
    first = world.claim(job_id, "worker-a")
    requeue(world, first)
    world.claim(job_id, "worker-a")
    with world.database.session() as session:
        assert not finish(session, first, "failed", error=ERROR)


def test_nothing_is_written_after_the_end(world: World) -> None:
    job_id = world.enqueue()
    held = world.claim(job_id)
    with world.database.session() as session:
        assert finish(session, held, "succeeded")
    with world.database.session() as session:
        assert not finish(session, held, "failed", error=ERROR)
        assert not append_log(session, held, "late")
        assert renew(session, held, 60) is RenewResult.LOST
    assert world.job(job_id).status == "succeeded"


def test_what_a_worker_writes_is_numbered_without_gaps(world: World) -> None:
    job_id = world.enqueue()
    held = world.claim(job_id)
    with world.database.session() as session:
        assert start_stage(session, held, 0, "prune")
        assert set_progress(session, held, {"current": 1, "total": 2, "unit": "x"}, event=False)
        assert append_metric(session, held, name="loss", value=0.5, step=3, stage="prune")
        assert append_log(session, held, "hello\n")
    running = world.job(job_id)
    assert (running.stage, running.progress) == ("prune", {"current": 1, "total": 2, "unit": "x"})
    with world.database.session() as session:
        assert finish_stage(session, held, 0, "prune", {"macs": 7})
        assert finish(session, held, "succeeded", result={"ok": True})
    assert world.events(job_id) == [
        "queued", "started", "stage_started", "metric", "stage_finished", "succeeded",
    ]  # fmt: skip
    with world.database.session() as session:
        metric = session.query(MetricRecord).one()
        assert (metric.seq, metric.name, metric.value, metric.step) == (4, "loss", 0.5, 3)
        assert session.query(LogRecord).one().text == "hello\n"
        stage = session.query(StageRecord).one()
        assert (stage.status, stage.measurement, stage.attempt) == ("succeeded", {"macs": 7}, 1)
    job = world.job(job_id)
    assert (job.last_event_seq, job.progress, job.lease_owner) == (6, None, None)
    assert job.finished_at is not None


def test_a_queued_job_is_canceled_at_once_and_never_claimed(world: World) -> None:
    job_id = world.enqueue()
    cancel(world, job_id)
    assert world.job(job_id).status == "canceled"
    assert world.job(job_id).finished_at is not None
    assert world.events(job_id) == ["queued", "canceled"]
    with world.database.session() as session:
        assert claim(session, job_id, "worker-a", 60) is None


def test_a_running_job_is_canceled_through_its_worker(world: World) -> None:
    job_id = world.enqueue()
    held = world.claim(job_id)
    cancel(world, job_id)
    assert world.job(job_id).status == "canceling"
    cancel(world, job_id)
    with world.database.session() as session:
        assert renew(session, held, 60) is RenewResult.CANCELING
        assert append_log(session, held, "stopping\n")
        assert finish(session, held, "canceled")
    assert world.job(job_id).status == "canceled"
    cancel(world, job_id)
    assert world.job(job_id).status == "canceled"
    assert world.events(job_id) == ["queued", "started", "canceling", "canceled"]


def race_claim_against_cancel(world: World, job_id: str) -> Claim | None:
    barrier = threading.Barrier(2)
    held: list[Claim | None] = []

    def take() -> None:
        barrier.wait(timeout=30)
        with world.database.session() as session:
            held.append(claim(session, job_id, "worker-a", 60))

    thread = threading.Thread(target=take)
    thread.start()
    barrier.wait(timeout=30)
    cancel(world, job_id)
    thread.join(timeout=30)
    return held[0]


def test_a_cancel_against_a_claim_ends_in_one_of_two_clean_states(world: World) -> None:
    for _ in range(10):
        job_id = world.enqueue()
        held = race_claim_against_cancel(world, job_id)
        assert world.job(job_id).status == ("canceled" if held is None else "canceling")


def test_a_released_job_waits_again_and_a_canceled_one_does_not(world: World) -> None:
    job_id = world.enqueue()
    held = world.claim(job_id)
    with world.database.session() as session:
        start_stage(session, held, 0, "prune")
    requeue(world, held)
    job = world.job(job_id)
    assert (job.status, job.stage, job.lease_owner, job.attempt) == ("queued", None, None, 1)
    with world.database.session() as session:
        assert session.query(StageRecord).one().status == "interrupted"
        assert len(unsent(session, 10)) == 2
    again = world.claim(job_id, "worker-b")
    assert again.attempt == 2
    cancel(world, job_id)
    requeue(world, again)
    assert world.job(job_id).status == "canceled"


def test_a_later_artifact_of_the_same_kind_replaces_the_earlier(world: World) -> None:
    job_id = world.enqueue()
    held = world.claim(job_id)
    for digit in "12":
        blob = StoredBlob(sha256=digit * 64, bytes=int(digit))
        with world.database.session() as session:
            assert add_artifact(
                session, held, kind="checkpoint", name="c", media_type="x/y", blob=blob
            )
    [artifact] = world.job(job_id).artifacts
    assert (artifact.sha256, artifact.tenant_id) == ("2" * 64, world.tenant_id)
    assert world.events(job_id)[-2:] == ["checkpoint", "checkpoint"]
    with world.database.session() as session:
        assert finish(session, held, "succeeded")
    assert world.job(job_id).artifacts == [], "a finished job has nothing to resume"


def test_the_end_of_an_inspection_judges_the_model(world: World) -> None:
    def model() -> ModelRecord:
        with world.database.session(read_only=True) as session:
            return session.query(ModelRecord).one()

    rejected = world.claim(world.enqueue(type="inspect"))
    with world.database.session() as session:
        assert finish(session, rejected, "failed", error=ERROR)
    assert (model().status, model().error, model().info) == ("rejected", ERROR, None)
    ready = world.claim(world.enqueue(type="inspect"))
    with world.database.session() as session:
        assert finish(session, ready, "succeeded", result={"parameters": 5})
    assert (model().status, model().error, model().info) == ("ready", None, {"parameters": 5})
    compress = world.claim(world.enqueue())
    with world.database.session() as session:
        assert finish(session, compress, "failed", error=ERROR)
    assert model().status == "ready"
