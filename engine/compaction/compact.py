"""Compact: slice every tensor to its survivors and repair the numbers baked into the graph.

The program is run once more, instruction by instruction, on the sliced tensors, beside the tape
of the original run (lockstep). Before each operator runs, its operands are compared with what
the coupling says the result must be; an operand that would give another result and does not
follow from a shape by itself is replaced by a constant. After each operator the shape must be
the expected one, or the compaction is refused: never a wrong model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from engine.compaction.conflict import CompactionConflict
from engine.compaction.repairs import REPAIRS, Repair, keep_fractions, keep_scalars
from engine.compaction.replay import Replay
from engine.compaction.survivors import Components, Survivors
from engine.coupling import Coupling
from engine.coupling.size_flow import SizeFlow
from engine.errors import EngineError
from engine.structure import map_tensors, tensors_in
from engine.tape import Step, canonical_names, flatten, to_meta
from engine.torchscript.edit import GraphEditor
from engine.torchscript.instructions import Instruction, walk
from engine.torchscript.interpreter import Interpreter, run_operator
from engine.torchscript.meta import run_on_meta
from engine.torchscript.program import Program


@torch.no_grad()
def compact(
    program: Program, coupling: Coupling, removed: Components, inputs: Sequence[Any]
) -> Program:
    """A new, physically smaller program.

    Args:
        program: the one the coupling was found on.
        removed: component numbers.
        inputs: the example the coupling was found on.

    Raises:
        CompactionConflict: the removal cannot be expressed; it names the step and the components.
    """
    survivors = Survivors(coupling, np.asarray(removed, np.int64))
    inputs = coupling.example if coupling.methods.sources else inputs
    fresh = coupling.methods.join(program.copy(share=True))
    lockstep = _Lockstep(fresh, coupling, survivors)
    Interpreter(fresh, lockstep).run([map_tensors(value, lockstep.place) for value in inputs])
    lockstep.finish()
    fresh.edited()
    smaller = fresh.alone
    if smaller.followed is not None:
        smaller.followed = smaller.followed.after(coupling.tape, survivors)
    return smaller


class _Lockstep:
    """Visitor that runs the sliced program beside the tape and repairs operands."""

    def __init__(self, program: Program, coupling: Coupling, survivors: Survivors) -> None:
        self._program = program
        self._coupling = coupling
        self._survivors = survivors
        self._run = run_on_meta if coupling.tape.meta else run_operator
        self._editor = GraphEditor(program)
        self._canonical = canonical_names(program)
        self._tensors: dict[str, torch.Tensor] = {}
        self._cut: dict[str, torch.Tensor] = {}
        self._next_step = 0
        self._next_branch = 0
        self._repairs = _RepairLog(self._editor)
        self._replay = Replay(program, coupling, survivors)

    def place(self, tensor: torch.Tensor) -> torch.Tensor:
        return to_meta(tensor) if self._coupling.tape.meta else tensor.clone()

    def tensor(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        canonical = self._canonical.get(name, name)
        if canonical not in self._tensors:
            if self._survivors.kept(canonical):
                tensor = self._survivors.cut(canonical, tensor.detach())
                self._cut[canonical] = tensor
            meta = self._coupling.tape.meta and tensor.dim() > 0
            # A copy: the program may write to its own tensors.
            self._tensors[canonical] = to_meta(tensor) if meta else tensor.detach().clone()
        return self._tensors[canonical]

    def operator(self, instruction: Instruction, arguments: list[Any]) -> Any:
        step = self._advance(instruction)
        expected = [
            self._survivors.shape(value.number, value.shape) for value in flatten(step.outputs)
        ]
        repair = Repair(step, arguments, expected, self._coupling, self._survivors)
        handler = REPAIRS.get(step.kind)
        if handler is not None:
            handler(repair)
        elif instruction.operator is not None and instruction.operator.pointwise:
            keep_scalars(repair)
        keep_fractions(repair)
        for position, edit in repair.edits.items():
            if self._replay.decided(instruction, position, edit):
                raise self._conflict(step, f"operand {position} is computed from data")
        self._repairs.apply(step, repair)
        try:
            outputs = self._replay.outputs(step, self._run(instruction, repair.arguments))
        except (RuntimeError, EngineError) as error:
            raise self._conflict(step, str(error).splitlines()[0]) from error
        listed = list(outputs) if len(instruction.outputs) > 1 else [outputs]
        found = [tuple(tensor.shape) for tensor in tensors_in(listed)]
        if found != expected:
            raise self._conflict(step, f"gives shapes {found}, expected {expected}")
        return outputs

    def branch(self, instruction: Instruction, condition: bool) -> bool:
        taken = self._decision(instruction)
        if taken != int(condition):
            # A size that shrank flipped the decision; the original one is the meaning.
            self._fix(instruction, bool(taken))
        return bool(taken)

    def iterations(self, instruction: Instruction, count: int) -> int:
        taken = self._decision(instruction)
        if taken != count:
            self._fix(instruction, taken)
        return taken

    def _fix(self, instruction: Instruction, taken: int) -> None:
        if self._replay.decided(instruction, 0):
            raise CompactionConflict(
                f"{instruction.kind} decides on data, and on a size that shrinks",
                where=instruction.location,
                components=np.empty(0, np.int64),
            )
        self._repairs.fix(instruction, 0, taken)

    def finish(self) -> None:
        """Check the log and put the sliced tensors into the program."""
        self._repairs.check()
        instructions = {item.index: item for item in walk(self._program.block)}
        for canonical, tensor in self._cut.items():
            if canonical.startswith("constant:"):
                index = int(canonical.partition(":")[2])
                self._editor.replace_constant(instructions[index], tensor.clone())
                continue
            for name in self._coupling.tape.aliases[canonical]:
                self._program.set_tensor(name, tensor)
        shared = [name for name, own in self._canonical.items() if own not in self._cut]
        self._program.own(shared)

    def _advance(self, instruction: Instruction) -> Step:
        steps = self._coupling.tape.steps
        if (
            self._next_step >= len(steps)
            or steps[self._next_step].instruction.index != instruction.index
            or steps[self._next_step].instruction.kind != instruction.kind
        ):
            raise CompactionConflict(
                f"the compact program runs {instruction.kind} where the original did not",
                where=instruction.location,
                components=np.empty(0, np.int64),
            )
        step = steps[self._next_step]
        self._next_step += 1
        if step.instruction is instruction:
            return step
        return Step(instruction, step.arguments, step.outputs)

    def _decision(self, instruction: Instruction) -> int:
        index, taken = self._coupling.tape.branches[self._next_branch]
        if index != instruction.index:
            raise CompactionConflict(
                "the compact program takes another path than the original",
                where=instruction.location,
                components=np.empty(0, np.int64),
            )
        self._next_branch += 1
        return taken

    def _conflict(self, step: Step, message: str) -> CompactionConflict:
        # Where numbers computed from sizes are at fault, the channels they count meet here too.
        reads = SizeFlow(self._program, self._coupling.tape).behind(step.instruction.inputs)
        counted = [self._coupling.labels.get(number, [])[dim : dim + 1] for number, dim in reads]
        met = [
            self._coupling.labels.get(value.number, [])
            for value in [*step.tensors(), *flatten(step.outputs)]
        ]
        components = [
            np.unique(own[own >= 0])
            for labels in [*met, *counted]
            for own in labels
            if own is not None
        ]
        return CompactionConflict(
            f"{step.kind} at {step.layer()}: {message}",
            where=step.layer(),
            components=np.unique(np.concatenate([*components, np.empty(0, np.int64)])),
        )


class _RepairLog:
    """Edits each operand once, and refuses operands that would need two values.

    An instruction inside a loop runs several times; one constant must serve every time.
    """

    def __init__(self, editor: GraphEditor) -> None:
        self._editor = editor
        self._seen: dict[tuple[int, int], list[Any]] = {}
        self._edited: dict[tuple[int, int], tuple[Instruction, Any]] = {}

    def apply(self, step: Step, repair: Repair) -> None:
        for position in repair.considered:
            key = (step.instruction.index, position)
            edit = repair.edits.get(position)
            self._seen.setdefault(key, []).append(edit)
            if edit is not None and key not in self._edited:
                self._edited[key] = (step.instruction, edit)
                if isinstance(edit, dict):
                    length = len(repair.arguments[position])
                    self._editor.replace_items(step.instruction, position, length, edit)
                else:
                    self._editor.replace_operand(step.instruction, position, edit)

    def fix(self, instruction: Instruction, position: int, value: Any) -> None:
        key = (instruction.index, position)
        if key not in self._edited:
            self._edited[key] = (instruction, value)
            self._editor.replace_operand(instruction, position, value)

    def check(self) -> None:
        for key, (instruction, edit) in self._edited.items():
            if any(not _same(other, edit) for other in self._seen.get(key, [])):
                raise CompactionConflict(
                    f"{instruction.kind} runs several times and would need different constants",
                    where=instruction.location,
                    components=np.empty(0, np.int64),
                )


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    return bool(left == right)
