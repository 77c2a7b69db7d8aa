"""Trainings by turns: each goes on for one block while the others wait.

A shared machine is fast and slow by the second. So what is compared runs in short turns, one after
the other, round by round, and the figures are medians over blocks of ratios within a block. A turn
is a step where a few per cent are to be told apart, and a block the steps of an epoch: what an
epoch costs besides its steps falls to the turn of its last.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

Training = Callable[[Callable[[], None]], object]
"""Runs to its end and calls what it is given at the end of every turn."""


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
        """Seconds of the next turn."""
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
    trainings: dict[str, Training],
    number: int,
    clock: Callable[[], float] = time.process_time,
    *,
    turns: int = 1,
) -> list[dict[str, float]]:
    """Seconds of every contestant's block, block by block; a first one to warm up is left out.

    Args:
        trainings: by name.
        number: of blocks.
        clock: in seconds.
        turns: of each contestant in a block.
    """
    contestants = {name: Contestant(training, clock) for name, training in trainings.items()}
    found: list[dict[str, float]] = []
    for block in range(number + 1):
        seconds = dict.fromkeys(contestants, 0.0)
        for turn in range(turns):
            for name in _order(list(contestants), block * turns + turn):
                seconds[name] += contestants[name].turn()
        if block:
            found.append(seconds)
    return found


def _order(names: list[str], turn: int) -> list[str]:
    """Who begins changes, and then the direction, so that nobody has the same neighbour always."""
    first = turn % len(names)
    turned = names[first:] + names[:first]
    return turned[::-1] if turn // len(names) % 2 else turned
