"""The steps of a tape beside another run of the same program, on other inputs.

Where sizes alone choose the path, both runs are in step. Where data chooses, the other run may
take more or fewer rounds of a loop, or another branch. Steps are then found by the place of their
instruction: its number among the instructions of its kind, which edits of constants do not change.
"""

from __future__ import annotations

from collections import Counter, deque

from engine.tape import Step, Tape
from engine.torchscript.instructions import Block, Instruction, compile_graph, walk

Place = tuple[str, int]


class StepsInOrder:
    """Gives the step of the tape that belongs to each instruction as it runs."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self._position = 0
        self._by_place: dict[Place, deque[Step]] | None = None
        self._places: dict[int, Place] = {}

    def next(self, instruction: Instruction) -> Step | None:
        """The step, or None for an instruction that did not run in the tape's run."""
        if not self._tape.branches:
            self._position += 1
            return self._tape.steps[self._position - 1]
        if self._by_place is None:
            self._by_place = self._sorted()
            self._places = _places(compile_graph(instruction.graph))
        found = self._by_place.get(self._places[instruction.index])
        if found is None:
            return None
        return found.popleft() if len(found) > 1 else found[0]

    def _sorted(self) -> dict[Place, deque[Step]]:
        places = _places(compile_graph(self._tape.steps[0].instruction.graph))
        found: dict[Place, deque[Step]] = {}
        for step in self._tape.steps:
            found.setdefault(places[step.instruction.index], deque()).append(step)
        return found


def _places(block: Block) -> dict[int, Place]:
    counts: Counter[str] = Counter()
    found = {}
    for instruction in walk(block):
        counts[instruction.kind] += 1
        found[instruction.index] = (instruction.kind, counts[instruction.kind])
    return found
