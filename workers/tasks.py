"""Celery's tasks: one, and it hands over at once."""

from __future__ import annotations

import os
import secrets
import socket
from functools import lru_cache

from persistence.artifact_store import artifact_store
from persistence.database import database
from persistence.settings import settings
from workers.app import RUN_JOB, app
from workers.draining import Drain
from workers.supervisor import Supervisor

drain = Drain()
"""This process's wish to stop; set by `workers.worker`."""


NAME = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
"""Of this worker, as owner of leases and among the living."""


@lru_cache
def supervisor() -> Supervisor:
    """The supervisor of this process."""
    return Supervisor(
        owner=NAME,
        database=database(),
        store=artifact_store(),
        settings=settings(),
        drain=drain,
    )


@app.task(name=RUN_JOB)  # type: ignore[untyped-decorator]  # Celery has no types
def run_job(job_id: str) -> None:
    """Run the job, if it is still there to be run."""
    supervisor().run(job_id)
