"""A database, a store and a supervisor, for tests of the workers."""

from __future__ import annotations

import contextlib
import io
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from persistence.artifact_store import LocalArtifactStore, store_file
from persistence.database import Database
from persistence.job_queue import enqueue, request_cancel
from persistence.records import (
    DatasetRecord,
    EventRecord,
    JobRecord,
    LogRecord,
    ModelRecord,
    Record,
    TenantRecord,
)
from persistence.settings import Settings
from workers.supervisor import Outcome, Supervisor

FAULTY = Path(__file__).with_name("faulty_runner.py")
RECIPE = {"stages": [{"stage": "prune", "allocation": {"amount": 0.5}}]}


def wait_until(met: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


class WorkerWorld:
    """One tenant with one model and one dataset."""

    def __init__(self, folder: Path, url: str | None = None, **values: Any) -> None:
        options: dict[str, Any] = {
            "data_dir": folder,
            "database_url": SecretStr(url) if url else None,
            "runner_threads": 1,
            "lease_seconds": 2.0,
            "heartbeat_seconds": 0.1,
        }
        self.settings = Settings(**(options | values))
        self.database = Database(self.settings.resolved_database_url)
        Record.metadata.create_all(self.database.engine)
        self.store = LocalArtifactStore(self.settings.resolved_artifact_dir)
        with self.database.session() as session:
            tenant = TenantRecord(name="tests")
            session.add(tenant)
            session.flush()
            self.tenant_id = tenant.id
        self.model_id = self.add_model(b"a model")
        self.dataset_id = self.add_dataset(b"a dataset")

    def add_model(self, data: bytes) -> str:
        blob = store_file(self.store, io.BytesIO(data))
        with self.database.session() as session:
            model = ModelRecord(tenant_id=self.tenant_id, sha256=blob.sha256, bytes=blob.bytes)
            session.add(model)
            session.flush()
            return model.id

    def add_dataset(self, data: bytes) -> str:
        blob = store_file(self.store, io.BytesIO(data))
        with self.database.session() as session:
            dataset = DatasetRecord(
                tenant_id=self.tenant_id,
                sha256=blob.sha256,
                bytes=blob.bytes,
                format="safetensors",
                tensors=[],
                splits={},
            )
            session.add(dataset)
            session.flush()
            return dataset.id

    def enqueue(self, **values: Any) -> str:
        options: dict[str, Any] = {
            "type": "compress",
            "model_id": self.model_id,
            "recipe": RECIPE,
            "queue": "cpu",
        }
        with self.database.session() as session:
            return enqueue(session, tenant_id=self.tenant_id, **(options | values)).id

    def supervisor(self, behaviour: str | None = None, **values: Any) -> Supervisor:
        options: dict[str, Any] = {"owner": "worker-a", "settings": self.settings}
        if behaviour is not None:
            options["command"] = (sys.executable, str(FAULTY), behaviour)
        return Supervisor(database=self.database, store=self.store, **(options | values))

    def cancel(self, job_id: str) -> None:
        with self.database.session() as session:
            request_cancel(session, session.get_one(JobRecord, job_id))

    def job(self, job_id: str) -> JobRecord:
        with self.database.session(read_only=True) as session:
            job = session.get_one(JobRecord, job_id)
            _ = job.artifacts
            return job

    def status(self, job_id: str) -> str:
        return self.job(job_id).status

    def error(self, job_id: str) -> dict[str, Any]:
        job = self.job(job_id)
        assert job.status == "failed"
        assert job.error is not None
        assert set(job.error) == {"type", "title", "hint", "where", "retryable"}
        return job.error

    def events(self, job_id: str) -> list[EventRecord]:
        with self.database.session(read_only=True) as session:
            rows = session.query(EventRecord).filter_by(job_id=job_id)
            return rows.order_by(EventRecord.seq).all()

    def event_types(self, job_id: str) -> list[str]:
        return [event.type for event in self.events(job_id)]

    def log(self, job_id: str) -> str:
        with self.database.session(read_only=True) as session:
            rows = session.query(LogRecord).filter_by(job_id=job_id).order_by(LogRecord.id)
            return "".join(row.text for row in rows)

    def scratch(self) -> list[str]:
        folder = self.settings.resolved_scratch_dir
        return sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.exists() else []

    def contents(self) -> set[bytes]:
        """Everything in the artifact store."""
        return {self.store.path(sha256).read_bytes() for sha256 in self.store.blobs()}

    @contextmanager
    def running(self, supervisor: Supervisor, job_id: str) -> Iterator[list[Outcome]]:
        """Run the job in a thread; the list holds the outcome after the block."""
        outcomes: list[Outcome] = []
        thread = threading.Thread(target=lambda: outcomes.append(supervisor.run(job_id)))
        thread.start()
        try:
            yield outcomes
        finally:
            thread.join(timeout=60)
        assert not thread.is_alive()


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def processes_of(job_id: str) -> list[int]:
    """Processes whose environment names the job's scratch folder: the guardian's and its own."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if job_id.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return [pid for pid in found if alive(pid)]
