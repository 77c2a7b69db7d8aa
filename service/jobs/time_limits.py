"""Whether the limits on a job's time can be kept, which only the server knows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from secateur.resources import FieldProblem, JobLimits

from persistence.settings import Settings


def time_faults(limits: JobLimits, settings: Settings, now: datetime) -> Iterator[FieldProblem]:
    """What is wrong with them.

    Args:
        limits: of the request.
        settings: the server's cap on running.
        now: by the database's clock, which deadlines are compared with.
    """
    if limits.deadline is not None and limits.deadline <= now:
        yield FieldProblem(
            field="deadline",
            message=f"This time has passed: it is {now:%Y-%m-%dT%H:%M:%SZ} on the server. "
            "Name one in the future.",
        )
    most = settings.max_job_seconds
    if limits.max_run_seconds is not None and limits.max_run_seconds > most:
        yield FieldProblem(
            field="max_run_seconds",
            message=f"A job may run for {most} seconds on this server "
            "(SECATEUR_MAX_JOB_SECONDS); ask for at most that, or leave the field out.",
        )
