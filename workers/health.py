"""`python -m workers.health`: whether a worker or dispatcher here could do its work.

Exit status 0 when the database, the broker and the artifact store of the settings answer, 1
otherwise, with the reason; for the health checks of container platforms.
"""

from __future__ import annotations

import sys

from kombu.exceptions import OperationalError as BrokerError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from persistence.artifact_store import StoreUnavailable, artifact_store
from persistence.database import database
from workers.app import app


def find_fault() -> str | None:
    """What does not answer, or None."""
    try:
        with database().session(read_only=True) as session:
            session.execute(text("SELECT version_num FROM alembic_version")).one()
    except SQLAlchemyError as error:
        return f"the database does not answer or was never migrated: {error}"
    try:
        artifact_store().check()
    except StoreUnavailable as error:
        return f"the artifact store cannot be used: {error.reason}. {error.hint}"
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0)
    except BrokerError as error:
        return f"the broker does not answer: {error}"
    return None


def main() -> int:
    """Say what is wrong on stderr."""
    fault = find_fault()
    if fault is None:
        return 0
    sys.stderr.write(f"{fault}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
