"""What a request has at hand: the backend of this process and who is calling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from persistence.artifact_store import ArtifactStore
from persistence.database import Database
from persistence.jobs import JobMark
from persistence.settings import Settings
from service.access.key_cache import Caller, KeyCache
from service.access.rate_limits import RateLimits
from service.jobs.change_feed import ChangeFeed
from service.jobs.written import JobKey, WrittenJob
from service.shared_reads import SharedReads


@dataclass(frozen=True)
class Backend:
    """What one application works with: settings, database, artifact store, change feed, the
    keys it verified lately, how many requests came, and the reads of jobs under way."""

    settings: Settings
    database: Database
    store: ArtifactStore
    changes: ChangeFeed
    keys: KeyCache
    job_reads: SharedReads[JobKey, WrittenJob]
    mark_reads: SharedReads[JobKey, JobMark]
    rates: RateLimits


# async, though they wait for nothing: plain functions would each be run in a thread
async def _backend(request: Request) -> Backend:
    backend: Backend = request.app.state.backend
    return backend


BackendOf = Annotated[Backend, Depends(_backend)]


async def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller  # noted by service.access.authentication
    return caller


CallerOf = Annotated[Caller, Depends(_caller)]

__all__ = ["Backend", "BackendOf", "Caller", "CallerOf"]
