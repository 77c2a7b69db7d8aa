"""How Alembic reaches the database: one transaction for the whole run, on both databases."""

from __future__ import annotations

from typing import Any

from alembic import context
from sqlalchemy import Connection, NullPool, create_engine, event, text

from persistence.records import Record, UtcDateTime
from persistence.settings import settings

_LOCK = 0x5EC4_7EA2
"""Advisory lock: of several servers started at once, one migrates and the others wait."""


def _render_item(kind: str, item: Any, _autogenerate: Any) -> str | bool:
    # migrations must not depend on types that later code may change
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    return False


def _run(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    context.configure(
        connection=connection,
        target_metadata=Record.metadata,
        render_as_batch=True,  # SQLite alters a table by rebuilding it
        render_item=_render_item,
        compare_type=True,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _let_sqlalchemy_begin(connection: Any, _record: Any) -> None:
    # the driver's own transaction handling would leave DDL outside the transaction
    connection.isolation_level = None


if context.is_offline_mode():
    raise SystemExit("Offline migrations (--sql) are not supported: they cannot serve SQLite.")

engine = create_engine(
    context.config.attributes.get("url") or settings().resolved_database_url, poolclass=NullPool
)
if engine.dialect.name == "sqlite":
    event.listen(engine, "connect", _let_sqlalchemy_begin)
    event.listen(engine, "begin", _begin_sqlite)
with engine.begin() as migrating:
    _run(migrating)
engine.dispose()
