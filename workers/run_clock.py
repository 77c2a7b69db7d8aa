"""How long an attempt may go on: the job's running time and its deadline.

Both were read off the database's clock at the claim; from there on only durations count, so the
worker's clock need not agree with it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from persistence.job_queue import Claim
from persistence.job_queue.clocks import deadline_passed, ran_too_long
from workers.endings import Ending


@dataclass(frozen=True)
class RunClock:
    """Started with the claim.

    Attributes:
        held: the claim.
        cap_seconds: what any job may run, all attempts together.
        started: by this machine's steady clock.
    """

    held: Claim
    cap_seconds: int
    started: float = field(default_factory=time.monotonic)

    @property
    def limit(self) -> int:
        """Seconds that the job may run in all."""
        return min(self.held.max_run_seconds or self.cap_seconds, self.cap_seconds)

    def over(self) -> Ending | None:
        """How the attempt ends if its time is up."""
        elapsed = time.monotonic() - self.started
        held = self.held
        left = None if held.deadline_in is None else held.deadline_in - elapsed
        if held.deadline is not None and left is not None and left <= 0:
            return Ending("expired", error=deadline_passed(held.deadline))
        if held.ran_seconds + elapsed >= self.limit:
            return Ending("failed", error=ran_too_long(self.limit))
        return None
