"""Waiting for an artifact store that does not answer: a job is not failed for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import structlog

from persistence.artifact_store import StoreUnavailable

PATIENCE_SECONDS = 600.0
"""Then the job goes back to the queue, for a worker that may reach the store."""
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 15.0
_LOOK_SECONDS = 0.25
_T = TypeVar("_T")
log = structlog.get_logger()


def patiently(action: Callable[[], _T], stop: Callable[[], bool]) -> _T:
    """What `action` returns, tried again with growing pauses while the store is away.

    Args:
        action: leaves nothing behind that hinders the next try.
        stop: whether there is a reason not to wait, such as a cancel.

    Raises:
        StoreUnavailable: it was away for too long, or `stop` said so.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    pause = _FIRST_PAUSE
    while True:
        try:
            return action()
        except StoreUnavailable as error:
            log.warning("the artifact store is away", reason=error.reason, pause_seconds=pause)
            again = time.monotonic() + pause
            while time.monotonic() < again:
                if stop() or time.monotonic() > deadline:
                    raise
                time.sleep(_LOOK_SECONDS)
            pause = min(2 * pause, _LONGEST_PAUSE)
