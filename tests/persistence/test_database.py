from __future__ import annotations

import threading
import time

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError, InternalError, OperationalError

from persistence.database import Database
from persistence.records import JobRecord, Record, TenantRecord
from tests import services


def make(url: str) -> Database:
    database = Database(url)
    Record.metadata.create_all(database.engine)
    return database


def names(database: Database) -> list[str]:
    with database.session(read_only=True) as session:
        return list(session.scalars(select(TenantRecord.name).order_by(TenantRecord.name)))


def test_a_session_commits_at_its_end_and_rolls_back_on_an_error(database_url: str) -> None:
    database = make(database_url)
    with database.session() as session:
        session.add(TenantRecord(name="kept"))

    def fail_half_way() -> None:
        with database.session() as session:
            session.add(TenantRecord(name="lost"))
            session.flush()
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way()
    assert names(database) == ["kept"]
    database.dispose()


def test_records_stay_readable_after_their_session(database_url: str) -> None:
    database = make(database_url)
    with database.session() as session:
        tenant = TenantRecord(name="kept")
        session.add(tenant)
    assert tenant.name == "kept"
    assert tenant.created_at.tzinfo is not None
    database.dispose()


def test_foreign_keys_hold(database_url: str) -> None:
    database = make(database_url)
    with pytest.raises(IntegrityError), database.session() as session:
        session.add(JobRecord(tenant_id="tnt_absent", type="plan", model_id="m", queue="cpu"))
    database.dispose()


def test_counters_grow_by_one_per_thread_under_contention(database_url: str) -> None:
    """Read, wait, write: what fails with `database is locked` where transactions start lazily."""
    database = make(database_url)
    with database.session() as session:
        session.add(TenantRecord(name="0"))
    errors: list[BaseException] = []

    def add_ten() -> None:
        try:
            for _ in range(10):
                with database.session() as session:
                    tenant = session.scalars(select(TenantRecord).with_for_update()).one()
                    time.sleep(0.001)
                    tenant.name = str(int(tenant.name) + 1)
        except BaseException as error:  # reported to the test below
            errors.append(error)
            raise

    threads = [threading.Thread(target=add_ten) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert not errors
    assert names(database) == ["40"]
    database.dispose()


def test_a_reader_does_not_wait_for_a_writer(database_url: str) -> None:
    database = make(database_url)
    with database.session() as writer:
        writer.add(TenantRecord(name="pending"))
        writer.flush()
        started = time.monotonic()
        assert names(database) == []
        assert time.monotonic() - started < 5
    assert names(database) == ["pending"]
    database.dispose()


def test_sqlite_is_in_wal_mode_and_makes_its_folder(tmp_path: object) -> None:
    database = make(f"sqlite:///{tmp_path}/new/folder/test.db")
    with database.session() as session:
        assert session.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
        assert session.execute(text("PRAGMA foreign_keys")).scalar_one() == 1
        assert session.execute(text("PRAGMA busy_timeout")).scalar_one() == 30_000
    database.dispose()


def test_postgresql_refuses_writes_in_a_read_only_session(
    postgres_service: services.Service,
) -> None:
    with services.postgres_database(postgres_service) as url:
        refuse_a_write(make(url))


def refuse_a_write(database: Database) -> None:
    refused = (InternalError, OperationalError)
    with (
        pytest.raises(refused, match="read-only transaction"),
        database.session(read_only=True) as session,
    ):
        session.add(TenantRecord(name="never"))
    assert "never" not in names(database)
    database.dispose()
