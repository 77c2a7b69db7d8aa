"""Decisions of the original run, repeated in the compact run.

The compact program holds other numbers than the original, so what it decides on them (how many
rows a mask keeps, whether a sum is positive) may differ, and the runs would part. Only shapes and
operands are compared between them, so wherever the content of a tensor decides, the compact run
is given what the original run found: integers, booleans and single numbers computed from data.

An operand that is itself computed from data must stay computed: no constant can stand for it.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch

from engine.compaction.survivors import Survivors
from engine.coupling import Coupling
from engine.tape import Step, TensorValue
from engine.torchscript.dependence import Dependence, data_dependence
from engine.torchscript.instructions import Instruction, walk
from engine.torchscript.program import Program

_NUMBERS = frozenset(
    f"aten::{name}"
    for name in ("item", "Int", "Float", "Bool", "Complex", "IntImplicit", "FloatImplicit",
                 "ComplexImplicit", "ScalarImplicit", "is_nonzero", "equal", "allclose")
)  # fmt: skip


class Replay:
    """What the original run decided, for the run of a copy of its program.

    Args:
        program: the copy; its graph is read before it is edited.
    """

    def __init__(self, program: Program, coupling: Coupling, survivors: Survivors) -> None:
        # Without real values nothing was decided.
        self._active = not coupling.tape.meta
        self._coupling = coupling
        self._survivors = survivors
        self._program = program
        self._block = program.block

    @cached_property
    def _dependence(self) -> Dependence:
        # Found when asked for: most programs are edited at constants only.
        return data_dependence(self._program, self._coupling.tape.branches, numbers=True)

    @cached_property
    def _lists(self) -> dict[int, tuple[int, ...]]:
        return {
            instruction.outputs[0]: instruction.inputs
            for instruction in walk(self._block)
            if instruction.kind == "prim::ListConstruct"
        }

    def decided(self, instruction: Instruction, position: int, edit: Any = None) -> bool:
        """Whether an operand, or the items of it that an edit replaces, are computed from data."""
        operand = instruction.inputs[position]
        if operand in self._block.fixed:
            return False
        items = self._lists.get(operand)
        if isinstance(edit, dict) and items is not None:
            return any(items[index] in self._dependence.data for index in edit)
        return operand in self._dependence.data and not isinstance(edit, torch.Tensor)

    def outputs(self, step: Step, outputs: Any) -> Any:
        """What the step gives, with the original's decisions in place of its own."""
        instruction = step.instruction
        if not self._active or self._dependence.data.isdisjoint(instruction.outputs):
            return outputs
        if instruction.kind in _NUMBERS:
            return step.outputs[0]
        if len(instruction.outputs) == 1:
            return self._put(step.outputs[0], outputs, instruction)
        return [
            self._put(value, output, instruction)
            for value, output in zip(step.outputs, outputs, strict=True)
        ]

    def _put(self, value: Any, output: Any, instruction: Instruction) -> Any:
        if isinstance(value, list | tuple) and isinstance(output, list | tuple):
            if len(value) != len(output):
                return output
            return type(output)(
                self._put(own, item, instruction) for own, item in zip(value, output, strict=True)
            )
        if not isinstance(value, TensorValue) or not isinstance(output, torch.Tensor):
            return output
        recorded = self._recorded(value)
        if recorded is None:
            return self._shaped(value, output, instruction)
        if instruction.kind.endswith("_") and output.shape == recorded.shape:
            return output.copy_(recorded)
        return recorded

    def _shaped(
        self, value: TensorValue, output: torch.Tensor, instruction: Instruction
    ) -> torch.Tensor:
        """Fractions of which data decides how many there are: only their number counts."""
        fixed = all(own is None for own in self._coupling.labels.get(value.number, []))
        decided = not self._dependence.shaped.isdisjoint(instruction.outputs)
        if fixed and decided and output.layout == torch.strided and output.shape != value.shape:
            return output.new_zeros(value.shape)
        return output

    def _recorded(self, value: TensorValue) -> torch.Tensor | None:
        if value.value is None or value.name is not None or value.value.layout != torch.strided:
            return None
        return self._survivors.cut_value(value, value.value)
