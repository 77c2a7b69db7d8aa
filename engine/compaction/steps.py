"""The steps of a tape beside another run of the same program, on other inputs.

Where sizes alone choose the path, both runs are in step. Where data chooses, the other run may
take more or fewer rounds of a loop, or another branch. So steps are found by their instruction:
its runs in order, and the last of them again where it runs more often.
"""

from __future__ import annotations

from collections import deque

from engine.tape import Step, Tape
from engine.torchscript.instructions import Instruction


class StepsInOrder:
    """Gives the step of the tape that belongs to each instruction as it runs."""

    def __init__(self, tape: Tape) -> None:
        self._steps: dict[int, deque[Step]] = {}
        for step in tape.steps:
            self._steps.setdefault(step.instruction.index, deque()).append(step)

    def next(self, instruction: Instruction) -> Step | None:
        """The step, or None for an instruction that did not run in the tape's run."""
        found = self._steps.get(instruction.index)
        if found is None:
            return None
        return found.popleft() if len(found) > 1 else found[0]
