"""What a reader of a job is sent."""

from __future__ import annotations

from dataclasses import dataclass

JobKey = tuple[str, str]
"""Tenant and job."""


@dataclass(frozen=True)
class WrittenJob:
    """A job as JSON, whether it has ended, and its `ETag` (`service.jobs.validator`)."""

    body: bytes
    ended: bool
    tag: str
