"""The migrations make exactly the schema of the records, and take it away again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import NullPool, create_engine, inspect

import migrations
from persistence import tenants
from persistence.database import Database
from persistence.records import ModelRecord, Record


def tables(url: str) -> set[str]:
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        return set(inspect(connection).get_table_names())


def test_up_down_up(database_url: str) -> None:
    migrations.upgrade(database_url)
    assert tables(database_url) == {*Record.metadata.tables, "alembic_version"}
    migrations.downgrade(database_url)
    assert tables(database_url) == {"alembic_version"}
    migrations.upgrade(database_url)
    assert tables(database_url) == {*Record.metadata.tables, "alembic_version"}


def test_the_records_differ_in_nothing_from_the_migrated_schema(database_url: str) -> None:
    migrations.upgrade(database_url)
    engine = create_engine(database_url, poolclass=NullPool)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Record.metadata) == []


def test_the_comparison_sees_a_missing_column(database_url: str) -> None:
    """The test above can fail: a column taken away is found."""
    migrations.upgrade(database_url)
    engine = create_engine(database_url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE jobs DROP COLUMN stage")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = compare_metadata(context, Record.metadata)
    assert [(entry[0], entry[2], entry[3].name) for entry in differences] == [
        ("add_column", "jobs", "stage")
    ]


def test_upgrading_twice_changes_nothing_and_keeps_rows(database_url: str) -> None:
    migrations.upgrade(database_url)
    database = Database(database_url)
    with database.session() as session:
        tenant = tenants.get_or_create(session, "acme")
        session.add(ModelRecord(tenant_id=tenant.id, sha256="0" * 64, bytes=1))
    migrations.upgrade(database_url)
    with database.session(read_only=True) as session:
        assert session.query(ModelRecord).count() == 1
    database.dispose()


def test_servers_that_start_together_migrate_once(database_url: str) -> None:
    environment = {**os.environ, "SECATEUR_DATABASE_URL": database_url}
    servers = [
        subprocess.Popen([sys.executable, "-m", "migrations"], env=environment) for _ in range(2)
    ]
    assert [server.wait(60) for server in servers] == [0, 0]
    assert "jobs" in tables(database_url)


def test_a_percent_sign_in_the_url_is_taken_as_it_is(tmp_path: Path) -> None:
    migrations.upgrade(f"sqlite:///{tmp_path}/50%.db")
    assert (tmp_path / "50%.db").exists()


def test_one_head() -> None:
    heads = ScriptDirectory.from_config(migrations.config("sqlite://")).get_heads()
    assert heads == ["0010"]


def test_offline_mode_is_refused() -> None:
    with pytest.raises(SystemExit, match="Offline"):
        command.upgrade(migrations.config("sqlite://"), "head", sql=True)
