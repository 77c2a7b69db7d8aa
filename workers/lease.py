"""The lease of a running job, kept alive by a thread of its own.

Copying a large model or storing a result may take longer than a lease; the thread renews it
whatever the supervisor is busy with, and notes what it learns: that the user wants the job
stopped, or that the job is no longer ours.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

import structlog
from sqlalchemy.exc import DBAPIError

from persistence.database import Database
from persistence.job_queue import Claim, RenewResult, renew

log = structlog.get_logger()


class LeaseKeeper:
    """Renews a claim every `heartbeat_seconds` until the block ends.

    A database that does not answer is asked again. When it has not confirmed the lease for
    `lease_seconds`, the lease counts as lost: another worker may have the job by then.
    """

    def __init__(
        self, database: Database, held: Claim, *, lease_seconds: float, heartbeat_seconds: float
    ) -> None:
        self._database = database
        self._held = held
        self._lease_seconds = lease_seconds
        self._heartbeat_seconds = min(heartbeat_seconds, lease_seconds / 3)
        self._confirmed = time.monotonic()
        self._stop = threading.Event()
        self._lost = False
        self._canceling = False
        self._thread = threading.Thread(
            target=self._run, name=f"lease of {held.job_id}", daemon=True
        )

    @property
    def lost(self) -> bool:
        """Whether the job must be left alone from now on."""
        return self._lost or time.monotonic() - self._confirmed > self._lease_seconds

    @property
    def canceling(self) -> bool:
        """Whether the user wants the job stopped."""
        return self._canceling

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
        self._thread.join()

    def _run(self) -> None:
        while not self._lost and not self._stop.wait(self._heartbeat_seconds):
            asked = time.monotonic()
            try:
                with self._database.session() as session:
                    result = renew(session, self._held, self._lease_seconds)
            except DBAPIError as error:
                log.warning("lease not renewed", job=self._held.job_id, error=str(error))
                continue
            if result is RenewResult.LOST:
                self._lost = True
            else:
                self._confirmed = asked
                self._canceling = self._canceling or result is RenewResult.CANCELING
