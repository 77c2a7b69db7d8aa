"""What a reader of a job is sent."""

from __future__ import annotations

from dataclasses import dataclass

JobKey = tuple[str, str]
"""Tenant and job."""


@dataclass(frozen=True)
class WrittenJob:
    """A job as JSON, and whether it has ended."""

    body: bytes
    ended: bool
