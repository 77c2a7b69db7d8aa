"""This worker's row among the living: written while it runs, gone when it ends in order."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import structlog
from sqlalchemy.exc import DBAPIError

from persistence import workers
from persistence.database import Database

log = structlog.get_logger()

_REPORT_SECONDS = 15.0


class Presence:
    """Reports from a thread while the block runs."""

    def __init__(
        self, database: Database, name: str, queues: Sequence[str], sandbox: dict[str, Any]
    ) -> None:
        self._database = database
        self._name = name
        self._queues = queues
        self._sandbox = sandbox
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._report_on, name="presence", daemon=True)

    def _report_on(self) -> None:
        while True:
            try:
                with self._database.session() as session:
                    workers.report(session, self._name, self._queues, self._sandbox)
            except DBAPIError as error:
                log.warning("the worker could not report", error=str(error))
            if self._stop.wait(_REPORT_SECONDS):
                return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=5)
        try:
            with self._database.session() as session:
                workers.leave(session, self._name)
        except DBAPIError as fault:
            log.warning("the worker's row stays until it is swept", error=str(fault))
