"""The repositories on both databases: tenants kept apart, lists in pages, blobs counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

import migrations
from persistence import api_keys, blobs, datasets, job_output, job_queue, jobs, models, tenants
from persistence.artifact_store import StoredBlob
from persistence.database import Database
from persistence.queue_position import queue_position
from persistence.records import ApiKeyRecord, ModelRecord


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    migrations.upgrade(database_url)
    database = Database(database_url)
    yield database
    database.dispose()


@pytest.fixture
def tenant(database: Database) -> str:
    with database.session() as session:
        return tenants.get_or_create(session, "acme").id


def sha(number: int) -> str:
    return f"{number:064x}"


def test_a_tenant_is_made_once(database: Database, tenant: str) -> None:
    with database.session() as session:
        assert tenants.get_or_create(session, "acme").id == tenant
        assert tenants.get_or_create(session, "other").id != tenant


def test_a_secret_opens_its_key_and_is_not_kept(database: Database, tenant: str) -> None:
    with database.session() as session:
        key, secret = api_keys.create(session, tenant_id=tenant, name="ci")
        _, other = api_keys.create(session, tenant_id=tenant, name="other")
    assert secret.startswith("sk_")
    assert len(secret) > 40
    assert secret != other
    with database.session() as session:
        found = api_keys.verify(session, secret)
        assert found is not None
        assert found.id == key.id
        assert api_keys.verify(session, secret + "x") is None
        assert api_keys.verify(session, "") is None
        assert api_keys.verify(session, key.secret_sha256) is None
        row = session.get_one(ApiKeyRecord, key.id)
        assert secret not in {str(value) for value in vars(row).values()}
        api_keys.revoke(row)
    with database.session() as session:
        assert api_keys.verify(session, secret) is None
        assert api_keys.verify(session, other) is not None


def test_lists_are_pages_newest_first(database: Database, tenant: str) -> None:
    with database.session() as session:
        made = [
            models.add(session, tenant_id=tenant, name="", sha256=sha(n), size=n).id
            for n in range(5)
        ]
        stranger = tenants.get_or_create(session, "other").id
        models.add(session, tenant_id=stranger, name="", sha256=sha(0), size=0)
    made.sort(reverse=True)
    with database.session(read_only=True) as session:
        first = models.list_page(session, tenant, limit=3, cursor=None)
        assert [one.id for one in first.records] == made[:3]
        assert first.next_cursor == made[2]
        last = models.list_page(session, tenant, limit=3, cursor=first.next_cursor)
        assert [one.id for one in last.records] == made[3:]
        assert last.next_cursor is None
        exact = models.list_page(session, tenant, limit=5, cursor=None)
        assert exact.next_cursor is None


def test_the_same_bytes_twice_need_a_deletion_between(database: Database, tenant: str) -> None:
    with database.session() as session:
        first = models.add(session, tenant_id=tenant, name="", sha256=sha(1), size=1)
        models.delete(first)
        session.flush()
        second = models.add(session, tenant_id=tenant, name="", sha256=sha(1), size=1)
        assert models.get(session, tenant, first.id) is None
        found = models.find_by_content(session, tenant, sha(1))
        assert found is not None
        assert found.id == second.id
    with pytest.raises(IntegrityError), database.session() as session:
        models.add(session, tenant_id=tenant, name="", sha256=sha(1), size=1)


def test_a_blob_is_needed_by_any_live_row_of_any_tenant(database: Database, tenant: str) -> None:
    with database.session() as session:
        stranger = tenants.get_or_create(session, "other").id
        model = models.add(session, tenant_id=tenant, name="", sha256=sha(1), size=1)
        theirs = models.add(session, tenant_id=stranger, name="", sha256=sha(1), size=1)
        dataset = datasets.add(
            session, tenant_id=tenant, name="", sha256=sha(2), size=1, format="npz", tensors=[],
            splits={},
        )  # fmt: skip
        job = job_queue.enqueue(
            session, tenant_id=tenant, type="compress", model_id=model.id, queue="cpu"
        )
        held = job_queue.claim(session, job.id, "worker", 60)
        assert held is not None
        blob = StoredBlob(sha256=sha(3), bytes=1)
        job_queue.add_artifact(session, held, kind="model", name="x", media_type="y", blob=blob)
        session.flush()

        def needed() -> list[bool]:
            session.flush()
            return [blobs.is_referenced(session, sha(number)) for number in range(5)]

        assert needed() == [False, True, True, True, False]
        models.delete(model)
        assert needed()[1]
        models.delete(theirs)
        datasets.delete(dataset)
        assert needed() == [False, False, False, True, False]


def test_the_lock_of_a_blob_makes_others_wait(database: Database) -> None:
    order: list[str] = []
    held = threading.Event()

    def second() -> None:
        held.wait(10)
        with database.session() as session:
            blobs.lock(session, sha(7))
            order.append("second")

    waiting = threading.Thread(target=second)
    waiting.start()
    with database.session() as session:
        blobs.lock(session, "f" * 64)  # the largest hash fits the lock's key, too
        blobs.lock(session, sha(7))
        held.set()
        time.sleep(0.3)
        order.append("first")
    waiting.join(30)
    assert order == ["first", "second"]


def test_jobs_are_found_by_every_filter(database: Database, tenant: str) -> None:
    with database.session() as session:
        model = models.add(session, tenant_id=tenant, name="", sha256=sha(1), size=1)
        made = [
            job_queue.enqueue(
                session, tenant_id=tenant, type=kind, model_id=model.id, queue="cpu",
                metadata={"run": run, "a.b": "dotted"},
            )
            for kind, run in (("compress", "1"), ("compress", "2"), ("plan", "1"))
        ]  # fmt: skip
        job_queue.request_cancel(session, made[1])
    with database.session(read_only=True) as session:

        def found(**filters: object) -> set[int]:
            page = jobs.list_page(session, tenant, limit=10, cursor=None, **filters)  # type: ignore[arg-type]
            return {[one.id for one in made].index(record.id) for record in page.records}

        assert found() == {0, 1, 2}
        assert found(type="compress") == {0, 1}
        assert found(status=["canceled"]) == {1}
        assert found(status=["canceled", "queued"], type="plan") == {2}
        assert found(metadata={"run": "1"}) == {0, 2}
        assert found(metadata={"a.b": "dotted", "run": "2"}) == {1}
        assert found(metadata={"run": "3"}) == set()
        assert found(metadata={"missing": ""}) == set()
        assert found(model_id="mdl_other") == set()
        live = jobs.live_jobs_using(session, tenant, model_id=model.id)
        assert [job.id for job in live] == sorted([made[0].id, made[2].id])
        assert jobs.live_jobs_using(session, "tnt_other", model_id=model.id) == []
        assert jobs.get(session, "tnt_other", made[0].id) is None


def test_the_position_counts_waiting_jobs_of_the_queue(database: Database, tenant: str) -> None:
    with database.session() as session:
        model = models.add(session, tenant_id=tenant, name="", sha256=sha(1), size=1)
        queues = ["cpu", "gpu", "cpu", "cpu"]
        made = [
            job_queue.enqueue(session, tenant_id=tenant, type="plan", model_id=model.id, queue=q)
            for q in queues
        ]
        cpu = sorted((job for job in made if job.queue == "cpu"), key=lambda job: job.id)
        assert [queue_position(session, job) for job in cpu] == [0, 1, 2]
        assert queue_position(session, made[1]) == 0
        assert job_queue.claim(session, cpu[0].id, "worker", 60) is not None
        session.expire_all()
        assert [queue_position(session, job) for job in cpu] == [None, 0, 1]


def test_marks_move_with_every_event(database: Database, tenant: str) -> None:
    with database.session() as session:
        model = models.add(session, tenant_id=tenant, name="", sha256=sha(1), size=1)
        job = job_queue.enqueue(
            session, tenant_id=tenant, type="plan", model_id=model.id, queue="cpu"
        )
        before = jobs.marks_of(
            session, [(tenant, job.id), ("tnt_other", job.id), (tenant, "job_other")]
        )
        assert set(before) == {(tenant, job.id)}
        job_queue.append_event(session, job.id, "log", {})
        after = jobs.marks_of(session, [(tenant, job.id)])
        assert after[tenant, job.id].version > before[tenant, job.id].version
        assert after[tenant, job.id].status == "queued"


def test_output_is_read_in_order_behind_a_mark(database: Database, tenant: str) -> None:
    with database.session() as session:
        model = models.add(session, tenant_id=tenant, name="", sha256=sha(1), size=1)
        job = job_queue.enqueue(
            session, tenant_id=tenant, type="plan", model_id=model.id, queue="cpu"
        )
        held = job_queue.claim(session, job.id, "worker", 60)
        assert held is not None
        for step in range(3):
            job_queue.append_metric(session, held, name="lr", value=step, step=step, stage="x")
            job_queue.append_log(session, held, f"{step};")
        session.flush()
        events = job_output.events(session, tenant, job.id, after=1, limit=2)
        assert [(event.seq, event.type) for event in events] == [(2, "started"), (3, "metric")]
        metrics = job_output.metrics(session, tenant, job.id, after=3, limit=10, name="lr")
        assert [metric.value for metric in metrics] == [1.0, 2.0]
        assert job_output.metrics(session, tenant, job.id, after=0, limit=10, name="none") == []
        [first, *rest] = job_output.log_chunks(session, tenant, job.id, after=0, limit=10)
        assert first.text == "0;"
        assert job_output.log_chunks(session, tenant, job.id, after=first.id, limit=10) == rest
        assert job_output.artifact_of_kind(session, tenant, job.id, "model") is None
        other = "tnt_other"
        assert job_output.events(session, other, job.id, after=0, limit=9) == []
        assert job_output.metrics(session, other, job.id, after=0, limit=9) == []
        assert job_output.log_chunks(session, other, job.id, after=0, limit=9) == []


def test_deleting_hides_and_keeps_the_row(database: Database, tenant: str) -> None:
    with database.session() as session:
        model = models.add(session, tenant_id=tenant, name="", sha256=sha(1), size=1)
        models.delete(model)
    with database.session() as session:
        assert models.get(session, tenant, model.id) is None
        assert models.get_for_update(session, tenant, model.id) is None
        assert models.list_page(session, tenant, limit=5, cursor=None).records == []
        assert session.scalars(select(ModelRecord.id)).all() == [model.id]
