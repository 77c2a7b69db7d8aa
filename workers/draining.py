"""A worker's wish to stop: running jobs get some time, then go back to the queue."""

from __future__ import annotations

import time


class Drain:
    """Set from a signal handler, and looked at by every supervisor of the process."""

    def __init__(self) -> None:
        self._deadline: float | None = None

    def request(self, seconds: float) -> None:
        """Stop soon: jobs that have not ended after `seconds` are given back. Asked again, they
        are given back at once."""
        # a plain attribute: safe inside a signal handler
        now = time.monotonic()
        self._deadline = now + seconds if self._deadline is None else min(now, self._deadline)

    @property
    def requested(self) -> bool:
        """Whether the worker takes no further job."""
        return self._deadline is not None

    @property
    def over(self) -> bool:
        """Whether running jobs must be given back now."""
        return self._deadline is not None and time.monotonic() >= self._deadline
