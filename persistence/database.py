"""The database: one engine per process, one transaction per session.

SQLite (embedded mode) and PostgreSQL (server mode) share every line of the code above this file.
What differs lies here: SQLite gets write-ahead logging, enforced foreign keys, a wait for locks,
and `BEGIN IMMEDIATE`, because a transaction that reads first and writes later fails with
`database is locked` when another writer came between, whatever the timeout.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.orm import Session

from persistence.settings import settings

_BUSY_SECONDS = 30
_READ_ONLY = "secateur_read_only"


class Database:
    """Engine and sessions of one database URL.

    Args:
        url: SQLAlchemy URL, `sqlite:///path` or `postgresql+psycopg://...`. The folder of a
            SQLite file is made if it is not there; the tables are made by the migrations.
    """

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        if self.is_sqlite:
            if parsed.database and parsed.database != ":memory:":
                Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
            self.engine = create_engine(parsed, connect_args={"timeout": _BUSY_SECONDS})
            event.listen(self.engine, "connect", _configure_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        else:
            # pre-ping: a database restart costs one retry, not one failed request per connection
            self.engine = create_engine(parsed, pool_pre_ping=True)
        options: dict[str, Any] = {_READ_ONLY: True}
        if parsed.get_backend_name() == "postgresql":
            options["postgresql_readonly"] = True
        self._reading = self.engine.execution_options(**options)

    @contextmanager
    def session(self, *, read_only: bool = False) -> Iterator[Session]:
        """One transaction: committed at the end, rolled back when the block raises.

        Args:
            read_only: promises that nothing is written. On SQLite such a session never waits for
                a writer; on PostgreSQL a write in it is refused.
        """
        bind: Engine = self._reading if read_only else self.engine
        # expire_on_commit off: records stay readable after the session ended
        with Session(bind, expire_on_commit=False) as session, session.begin():
            yield session

    def dispose(self) -> None:
        """Close all pooled connections."""
        self.engine.dispose()


def _configure_sqlite(connection: Any, _record: Any) -> None:
    # isolation_level None: the driver starts no transaction by itself; `_begin_sqlite` does
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    reading = connection.get_execution_options().get(_READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


@lru_cache
def database() -> Database:
    """The database of this process, from the settings."""
    return Database(settings().resolved_database_url)
