"""No blob that a row names is ever deleted, and every other goes in the end."""

from __future__ import annotations

import random
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from fastapi import Response
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from pydantic import SecretStr
from safetensors.numpy import save
from secateur.resources import UploadComplete, UploadCreate
from sqlalchemy import select

import migrations
from persistence import blobs, datasets, tenants, uploads
from persistence.artifact_store import LocalArtifactStore, StoredBlob
from persistence.database import Database
from persistence.records import (
    ArtifactRecord,
    DatasetRecord,
    JobRecord,
    ModelRecord,
    Record,
    UploadPartRecord,
    UploadRecord,
    utc_now,
)
from persistence.settings import Settings
from service.app import create_app
from service.context import Backend
from service.datasets import service as dataset_service
from service.idempotency import Once
from service.problems import ProblemError
from service.resumable_uploads import completion
from service.resumable_uploads import service as upload_service
from service.uploads.removal import remove_if_unreferenced
from tests import services
from workers.blob_sweep import remove_if_unneeded, sweep_blobs

CONTENTS = (b"one", b"two", b"three")
NAMES_NO_BLOB = {
    ("uploads", "sha256"): "announced before anything arrives",
    ("models", "upload_sha256"): "of the file that was sent; the copy of it is kept",
    ("idempotency_keys", "request_sha256"): "fingerprint of a request",
    ("api_keys", "secret_sha256"): "of a secret",
}
"""Every other column that ends in `sha256` names a blob. A new one is either counted by
`persistence.blobs` (call it `sha256`) or entered here with what it is."""


def test_every_column_that_names_a_blob_is_counted() -> None:
    found = {
        (table.name, column.name)
        for table in Record.metadata.sorted_tables
        for column in table.columns
        if column.name.endswith("sha256")
    }
    counted = {(column.table.name, column.name) for column in blobs.naming_columns()}
    assert found == counted | NAMES_NO_BLOB.keys()
    assert not counted & NAMES_NO_BLOB.keys()
    assert {"models", "datasets", "artifacts", "upload_parts"} <= {table for table, _ in counted}


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    migrations.upgrade(database_url)
    database = Database(database_url)
    yield database
    database.dispose()


def test_a_row_in_any_of_them_keeps_its_blob(database: Database) -> None:
    """One row of each, made from the schema alone."""
    with database.session() as session:
        tenant = tenants.get_or_create(session, "acme").id
        model = ModelRecord(id="mdl_x", tenant_id=tenant, sha256="a" * 64, bytes=1)
        upload = UploadRecord(id="upl_x", tenant_id=tenant, kind="model", expires_at=utc_now())
        session.add_all([model, upload])
        session.flush()
        session.add(
            JobRecord(id="job_x", tenant_id=tenant, type="plan", model_id="mdl_x", queue="cpu")
        )
        session.flush()
        parents = {"tenants": tenant, "jobs": "job_x", "uploads": "upl_x", "models": "mdl_x"}
        mappers = {mapper.local_table: mapper for mapper in Record.registry.mappers}
        for number, column in enumerate(blobs.naming_columns()):
            name = f"{number:064x}"
            assert not blobs.is_referenced(session, name)
            values: dict[str, object] = {"sha256": name}
            for other in column.table.columns:
                if other.foreign_keys and not other.nullable:
                    [key] = other.foreign_keys
                    values[other.name] = parents[key.column.table.name]
                elif other.name not in values and not other.nullable and other.default is None:
                    empty = {"tensors": [], "splits": {}}
                    number_like = other.type.python_type is int
                    values[other.name] = empty.get(other.name, 1 if number_like else "1")
            if "id" in column.table.c:
                values["id"] = f"row_{number}"
            record = mappers[column.table].class_(**values)
            session.add(record)
            session.flush()
            assert blobs.is_referenced(session, name), column.table.name
            if "deleted_at" in column.table.c:
                record.deleted_at = utc_now()
            else:
                session.delete(record)
            session.flush()
            assert not blobs.is_referenced(session, name), column.table.name


class Interleavings(RuleBasedStateMachine):
    """Steps of requests and sweeps in any order. A step is a transaction or a write to the store:
    what the locks make of real threads (the race on PostgreSQL below)."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        url = f"sqlite:///{self.folder / 'x.db'}"
        self.database = Database(url)
        Record.metadata.create_all(self.database.engine)
        self.store = LocalArtifactStore(self.folder / "artifacts")
        self.removals: list[str] = []
        with self.database.session() as session:
            self.tenants = [tenants.get_or_create(session, name).id for name in "ab"]
            for tenant in self.tenants:
                session.add(
                    UploadRecord(
                        id=f"upl_{tenant}", tenant_id=tenant, kind="model", expires_at=utc_now()
                    )
                )

    @rule(content=st.sampled_from(CONTENTS))
    def bytes_arrive(self, content: bytes) -> None:
        with self.store.open_writer() as writer:
            writer.write(content)
            writer.commit()

    @rule(content=st.sampled_from(CONTENTS), who=st.sampled_from((0, 1)))
    def they_become_a_dataset(self, content: bytes, who: int) -> None:
        digest = sha256(content).hexdigest()
        with self.database.session() as session:
            blobs.lock(session, digest)
            known = datasets.find_by_content(session, self.tenants[who], digest)
            if self.store.exists(digest) and known is None:
                datasets.add(
                    session, tenant_id=self.tenants[who], name="", sha256=digest, size=1,
                    format="npz", tensors=[], splits={},
                )  # fmt: skip

    @rule(content=st.sampled_from(CONTENTS), who=st.sampled_from((0, 1)), number=st.integers(1, 2))
    def they_become_a_part(self, content: bytes, who: int, number: int) -> None:
        digest = sha256(content).hexdigest()
        with self.database.session() as session:
            blobs.lock(session, digest)
            if self.store.exists(digest):
                tenant = self.tenants[who]
                upload = uploads.get(session, tenant, f"upl_{tenant}")
                assert upload is not None
                _, replaced = uploads.put_part(session, upload, number, sha256=digest, size=1)
                if replaced is not None:
                    self.removals.append(replaced)

    @rule(content=st.sampled_from(CONTENTS), who=st.sampled_from((0, 1)))
    def a_dataset_is_deleted(self, content: bytes, who: int) -> None:
        digest = sha256(content).hexdigest()
        with self.database.session() as session:
            record = datasets.find_by_content(session, self.tenants[who], digest)
            if record is not None:
                datasets.delete(record)
                self.removals.append(digest)

    @rule(who=st.sampled_from((0, 1)), number=st.integers(1, 2))
    def a_part_goes(self, who: int, number: int) -> None:
        with self.database.session() as session:
            part = session.get(UploadPartRecord, (f"upl_{self.tenants[who]}", number))
            if part is not None:
                session.delete(part)

    @rule()
    def a_removal_runs(self) -> None:
        if self.removals:
            remove_if_unreferenced(self.database, self.store, self.removals.pop(0))

    @rule()
    def a_removal_is_lost_in_a_crash(self) -> None:
        self.removals.clear()

    @rule(content=st.sampled_from(CONTENTS), age=st.sampled_from((0.0, 3600.0)))
    def the_sweep_looks_at_one(self, content: bytes, age: float) -> None:
        digest = sha256(content).hexdigest()
        remove_if_unneeded(self.database, self.store, digest, min_age_seconds=age)

    @invariant()
    def what_is_named_is_there(self) -> None:
        if hasattr(self, "database"):
            assert named(self.database) <= set(self.store.blobs())

    def teardown(self) -> None:
        if hasattr(self, "database"):
            sweep_blobs(self.database, self.store, min_age_seconds=0)
            assert set(self.store.blobs()) == named(self.database)
            self.database.dispose()
            shutil.rmtree(self.folder)


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=6, stateful_step_count=30, deadline=None)


def named(database: Database) -> set[str]:
    """Every hash that a live row names, asked table by table."""
    found: set[str] = set()
    with database.session(read_only=True) as session:
        for record in (ModelRecord, DatasetRecord):
            live = select(record.sha256).where(record.deleted_at.is_(None))
            found |= set(session.scalars(live))
        for column in (ArtifactRecord.sha256, UploadPartRecord.sha256):
            found |= set(session.scalars(select(column)))
    return found


@pytest.mark.exhaustive
def test_requests_that_race_the_sweep_lose_nothing(
    postgres_service: services.Service, tmp_path: Path
) -> None:
    """Two tenants upload, complete, delete and abort the same few files while sweeps without a
    least age run all the time."""
    arrays = [np.full((2, 1), number, np.float32) for number in range(3)]
    files = [save({"train/inputs/0": array}) for array in arrays]
    with services.postgres_database(postgres_service) as url:
        migrations.upgrade(url)
        app = create_app(Settings(data_dir=tmp_path, database_url=SecretStr(url)))
        backend: Backend = app.state.backend
        with backend.database.session() as session:
            owners = [tenants.get_or_create(session, name).id for name in "ab"]
        stop, faults, done = threading.Event(), list[BaseException](), Counter[str]()

        def once(tenant: str) -> Once:
            return Once(tenant, "POST /x", None, Response(), backend.database)

        def stored(content: bytes) -> StoredBlob:
            with backend.store.open_writer() as writer:
                writer.write(content)
                return writer.commit()

        def direct(tenant: str, content: bytes) -> None:
            made = dataset_service.register(
                backend, tenant, stored(content), "", once(tenant).of("")
            )
            done["registered"] += 1
            check(made.sha256)
            dataset_service.delete(backend, tenant, made.id)

        def in_parts(tenant: str, content: bytes) -> None:
            with backend.database.session() as session:
                body = UploadCreate(kind="dataset")
                upload = upload_service.begin(session, backend.settings, tenant, body).id
            halves = (content[:40], content[40:])
            for number, half in enumerate(halves, 1):
                part = upload_service.put_part(backend, tenant, upload, number, stored(half))
                check(part.sha256)
            if random.random() < 0.3:  # noqa: S311 - no secret
                upload_service.remove_parts(backend, upload_service.abort(backend, tenant, upload))
                return
            made = completion.complete(backend, tenant, upload, UploadComplete(), once(tenant))
            done["completed"] += 1
            upload_service.remove_parts(backend, made.parts)
            dataset_service.delete(backend, tenant, made.resource.id)

        def check(digest: str) -> None:
            with backend.database.session() as session:
                blobs.lock(session, digest)
                if blobs.is_referenced(session, digest) and not backend.store.exists(digest):
                    raise AssertionError(f"{digest} is named and gone")

        def work(action: Callable[[str, bytes], None]) -> None:
            try:
                while not stop.is_set():
                    with suppress(ProblemError):  # interfered with, or deleted by the other
                        action(random.choice(owners), random.choice(files))  # noqa: S311
            except BaseException as error:
                faults.append(error)
                stop.set()

        def sweep() -> None:
            try:
                while not stop.is_set():
                    done["swept"] += sweep_blobs(backend.database, backend.store, min_age_seconds=0)
            except BaseException as error:
                faults.append(error)
                stop.set()

        threads = [threading.Thread(target=work, args=(one,)) for one in (direct, in_parts) * 3]
        threads += [threading.Thread(target=sweep) for _ in range(2)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 30
        enough = {"registered": 30, "completed": 15, "swept": 30}
        while not stop.is_set() and time.monotonic() < deadline:
            if all(done[name] >= count for name, count in enough.items()):
                break
            time.sleep(0.02)
        stop.set()
        for thread in threads:
            thread.join(60)
        assert faults == []
        assert all(done[name] > 0 for name in enough), done
        assert named(backend.database) <= set(backend.store.blobs())
        sweep_blobs(backend.database, backend.store, min_age_seconds=0)
        assert set(backend.store.blobs()) == named(backend.database)
        backend.database.dispose()
