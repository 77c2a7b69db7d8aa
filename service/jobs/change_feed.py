"""Waiting for jobs to move, without a thread or a query per waiter.

Workers write to the database and know nothing of who is waiting. One task per process asks, in a
single query, for the version of every job someone waits for, and wakes those whose job moved.
Any number of long polls and event streams costs four small queries a second; none costs nothing.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from anyio import to_thread
from sqlalchemy.exc import SQLAlchemyError

from persistence import jobs
from persistence.database import Database
from persistence.jobs import JobMark
from service.jobs.written import JobKey
from service.logs import logger

_log = logger("secateur.changes")
_INTERVAL_SECONDS = 0.25
_PAUSE_AFTER_FAILURE_SECONDS = 2.0


class Watch:
    """One waiter's view of one job."""

    def __init__(self) -> None:
        self._mark: JobMark | None = None
        self._moved = asyncio.Event()

    def tell(self, mark: JobMark) -> None:
        """Note the job's current state; wakes the waiter when it is news."""
        if mark != self._mark:
            self._mark = mark
            self._moved.set()

    async def moved(self, seconds: float) -> JobMark | None:
        """The job's state once it moved since the last call, or None after `seconds`."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._moved.wait(), seconds)
            self._moved.clear()
            return self._mark
        return None


class ChangeFeed:
    """The task and its waiters."""

    def __init__(self, database: Database, interval_seconds: float = _INTERVAL_SECONDS) -> None:
        self._database = database
        self._interval = interval_seconds
        self._watches: defaultdict[JobKey, set[Watch]] = defaultdict(set)
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def watch(self, tenant_id: str, job_id: str) -> Iterator[Watch]:
        """Follow a job of the tenant while the block runs."""
        key = (tenant_id, job_id)
        watch = Watch()
        self._watches[key].add(watch)
        self._wanted.set()
        try:
            yield watch
        finally:
            self._watches[key].discard(watch)
            if not self._watches[key]:
                del self._watches[key]

    @property
    def watched(self) -> int:
        """Number of jobs someone waits for."""
        return len(self._watches)

    def start(self) -> None:
        """Begin to look for changes; needs a running event loop."""
        self._task = asyncio.create_task(self._run(), name="change feed")

    async def stop(self) -> None:
        """End the task."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            if not self._watches:
                self._wanted.clear()
                await self._wanted.wait()
            try:
                marks = await to_thread.run_sync(self._read, list(self._watches))
            except SQLAlchemyError:
                # a database that is away for a while must not end the waiting for good
                _log.exception("the change feed cannot read")
                await asyncio.sleep(_PAUSE_AFTER_FAILURE_SECONDS)
                continue
            for key, mark in marks.items():
                for watch in self._watches.get(key, ()):
                    watch.tell(mark)
            await asyncio.sleep(self._interval)

    def _read(self, wanted: list[JobKey]) -> dict[JobKey, JobMark]:
        with self._database.session(read_only=True) as session:
            return jobs.marks_of(session, wanted)
