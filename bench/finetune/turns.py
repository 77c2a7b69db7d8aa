"""Trainings by turns: each goes on for one block while the others wait.

A shared machine is fast and slow by the second. So what is compared runs in short blocks, one after
the other, round by round, and the figures are medians over rounds of ratios within a round.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

Training = Callable[[Callable[[], None]], object]
"""Runs to its end and calls what it is given at the end of every block."""


class Contestant:
    """A training in a thread of its own, of which only one runs at a time.

    Settings that it makes for its thread (the way subnormals are treated, the TorchScript
    optimiser) do not reach the others.
    """

    def __init__(self, training: Training, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._go = threading.Semaphore(0)
        self._over = threading.Semaphore(0)
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(training,), daemon=True)
        self._thread.start()

    def turn(self) -> float:
        """Seconds of the next block."""
        begun = self._clock()
        self._go.release()
        self._over.acquire()
        if self._fault is not None:
            raise self._fault
        return self._clock() - begun

    def _run(self, training: Training) -> None:
        try:
            self._go.acquire()
            training(self._pause)
        except BaseException as error:  # told where the turns are counted
            self._fault = error
        finally:
            self._over.release()

    def _pause(self) -> None:
        self._over.release()
        self._go.acquire()


def rounds(
    trainings: dict[str, Training], number: int, clock: Callable[[], float] = time.process_time
) -> list[dict[str, float]]:
    """Seconds of every contestant's block, round by round; a first round to warm up is left out."""
    contestants = {name: Contestant(training, clock) for name, training in trainings.items()}
    found: list[dict[str, float]] = []
    for turn in range(number + 1):
        # Who begins changes, so that nobody always follows the same neighbour.
        names = list(contestants)[turn % len(contestants) :]
        names += [name for name in contestants if name not in names]
        seconds = {name: contestants[name].turn() for name in names}
        if turn:
            found.append(seconds)
    return found
