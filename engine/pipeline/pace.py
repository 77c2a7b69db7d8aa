"""When a job notes where it stands while it trains.

A checkpoint that kept training for c seconds is followed by the next one after at least c / 0.03:
so they take at most 3 % of the time, whatever the model's size and the disk's speed. Within an
epoch there is none sooner than 10 seconds after the last: less is not worth a file. A checkpoint
of 9 seconds, of a model of gigabytes, so comes every five minutes; a larger one is rarer, for what
it would save is worth less than what it costs. (For failures at random with mean time M between
them the best distance is sqrt(2 c M), Young 1974, "A first order approximation to the optimum
checkpoint interval", CACM 17; at M of hours that is of the same order.)

A recipe that names steps or seconds gets them, and a checkpoint after every epoch, at any cost.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from secateur.recipe import Checkpoints

SHARE = 0.03
_LEAST_SECONDS = 10.0


class CheckpointPace:
    """Decides, and measures what it cost.

    A due checkpoint begins when this says so, and ends with `written`.
    """

    def __init__(
        self, wanted: Checkpoints | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Args:
        wanted: by the recipe; None for what 3 % of the time allow.
        clock: seconds.
        """
        self._wanted = wanted
        self._clock = clock
        self._began = self._ended = clock()
        self._cost = 0.0
        self._steps = 0

    def begin(self) -> None:
        """A checkpoint that must be written whatever it costs begins."""
        self._began = self._clock()

    def written(self) -> None:
        """It lies on the disk, or could not be written: neither is tried again at once."""
        self._ended = self._clock()
        self._cost = self._ended - self._began
        self._steps = 0

    def due_after_step(self) -> bool:
        """Whether a checkpoint within the epoch begins now."""
        self._steps += 1
        wanted, passed = self._wanted, self._clock() - self._ended
        if wanted is None:
            due = passed >= max(_LEAST_SECONDS, self._cost / SHARE)
        else:
            due = wanted.steps is not None and self._steps >= wanted.steps
            due = due or (wanted.seconds is not None and passed >= wanted.seconds)
        return self._begins(due)

    def due_after_epoch(self) -> bool:
        """Whether one begins between two epochs."""
        self._steps += 1
        passed = self._clock() - self._ended
        return self._begins(self._wanted is not None or passed >= self._cost / SHARE)

    def _begins(self, due: bool) -> bool:
        if due:
            self.begin()
        return due
