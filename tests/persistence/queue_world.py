"""A database with one tenant and one model, for tests of the queue."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from persistence.database import Database
from persistence.identifiers import new_id
from persistence.job_queue import Claim, claim, enqueue
from persistence.records import EventRecord, JobRecord, ModelRecord, Record, TenantRecord
from persistence.settings import Settings


@dataclass
class World:
    database: Database
    tenant_id: str
    model_id: str

    def enqueue(self, **values: Any) -> str:
        options: dict[str, Any] = {"type": "compress", "queue": "cpu"} | values
        with self.database.session() as session:
            return enqueue(session, tenant_id=self.tenant_id, model_id=self.model_id, **options).id

    @property
    def settings(self) -> Settings:
        return Settings()

    def another_tenant(self) -> World:
        """The same database, as another tenant with a model of its own sees it."""
        with self.database.session() as session:
            tenant = TenantRecord(name=new_id("other"))
            session.add(tenant)
            session.flush()
            model = ModelRecord(tenant_id=tenant.id, sha256="0" * 64, bytes=1)
            session.add(model)
            session.flush()
            return World(self.database, tenant.id, model.id)

    def claim(self, job_id: str, owner: str = "worker-a", lease_seconds: float = 60) -> Claim:
        with self.database.session() as session:
            held = claim(session, job_id, owner, lease_seconds)
        assert held is not None
        return held

    def job(self, job_id: str) -> JobRecord:
        with self.database.session(read_only=True) as session:
            job = session.get(JobRecord, job_id)
            assert job is not None
            _ = job.artifacts
            return job

    def events(self, job_id: str) -> list[str]:
        with self.database.session(read_only=True) as session:
            rows = session.query(EventRecord).filter_by(job_id=job_id).order_by(EventRecord.seq)
            found = rows.all()
        assert [event.seq for event in found] == list(range(1, len(found) + 1))
        return [event.type for event in found]


@contextmanager
def open_world(url: str) -> Iterator[World]:
    database = Database(url)
    Record.metadata.create_all(database.engine)
    with database.session() as session:
        tenant = TenantRecord(name="tests")
        session.add(tenant)
        session.flush()
        model = ModelRecord(tenant_id=tenant.id, sha256="0" * 64, bytes=1)
        session.add(model)
        session.flush()
        world = World(database, tenant.id, model.id)
    try:
        yield world
    finally:
        database.dispose()
