"""Sizes as numbers: where a size that shrinks would say something else.

A size that only shapes other tensors follows a removal by itself. Elsewhere it is a number:

1. what the model returns, or keeps in an attribute, must stay as it was: its channels stay;
2. a number that enters arithmetic on data keeps its value: a constant takes its place. No constant
   can where it is computed from a size of the input too (`numel`): then the channels stay, and
   so they do where a tensor holds several such numbers;
3. a decision on a size of channels together with a size of the input would fall at another size
   of the input than before: the channels stay.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from engine.coupling.labels import Reason
from engine.coupling.size_flow import RANK, Read, SizeFlow, single_number
from engine.coupling.tracker import Tracker
from engine.tape import Step
from engine.torchscript.instructions import Instruction, walk
from engine.torchscript.program import Program

_RETURNED = "its size is an output of the model"
_KEPT = "its size is kept in an attribute of the model"
_ARITHMETIC = "its size enters arithmetic on data, together with a size of the input"
_SEVERAL = "its size enters arithmetic on data as one of several numbers in a tensor"
_DECISION = "a decision depends on its size together with a size of the input"
_FILLING = frozenset({"aten::where", "aten::masked_fill", "aten::rsub", "aten::fill"})
"""Arithmetic that torch does not tag pointwise in every overload."""


def freeze_sizes(tracker: Tracker, program: Program, flow: SizeFlow) -> None:
    """Keep the channels whose size is more than a shape."""
    if not flow.reads:
        return
    sizes = _Sizes(tracker, flow)
    sizes.keep(flow.behind(program.block.outputs), "size", _RETURNED)
    for instruction in walk(program.block):
        reads = flow.behind(instruction.inputs)
        if not reads:
            continue
        if instruction.kind == "prim::SetAttr":
            sizes.keep(reads, "size", _KEPT)
        elif instruction.kind in {"prim::If", "prim::Loop"}:
            sizes.decision(instruction)
        else:
            for step in flow.steps.get(instruction.index, []):
                sizes.arithmetic(step)


def is_fixed(tracker: Tracker, flow: SizeFlow, read: Read) -> bool:
    """Whether weights alone determine a size, so that no input changes it.

    How many dimensions a tensor has is asked of the inputs themselves; inside it is the example's.
    """
    value = flow.tensors[read[0]]
    if value.name is not None:
        return True
    if read[1] == RANK:
        return value not in tracker.tape.inputs
    labels = tracker.merged_labels(value)[read[1]]
    return labels is not None and any(
        tracker.space.range_of(int(label)).tensor for label in np.ravel(labels) if label > 0
    )


class _Sizes:
    def __init__(self, tracker: Tracker, flow: SizeFlow) -> None:
        self._tracker = tracker
        self._flow = flow

    def keep(self, reads: Iterable[Read], operator: str, text: str) -> None:
        """Freeze what these reads measure."""
        for number, dim in reads:
            if dim == RANK:
                continue
            labels = self._tracker.merged_labels(self._flow.tensors[number])[dim]
            if labels is not None:
                self._tracker.space.freeze(labels, Reason(operator, text))

    def decision(self, instruction: Instruction) -> None:
        """The condition of an If; the number of rounds and the conditions of a Loop."""
        if instruction.kind == "prim::If":
            asked = list(instruction.inputs)
            if any(
                item.kind == "prim::RaiseException"
                for block in instruction.blocks
                for item in block.instructions
            ):
                return  # the compact program would raise, not go wrong
        else:
            asked = [*instruction.inputs[:2], instruction.blocks[0].outputs[0]]
        reads = self._flow.behind(asked)
        if self._varies(reads):
            self.keep(reads, instruction.kind, _DECISION)

    def arithmetic(self, step: Step) -> None:
        """Numbers beside data in an operator that works element by element."""
        operator = step.instruction.operator
        if operator is None or not (operator.pointwise or step.kind in _FILLING):
            return
        inputs, data = step.instruction.inputs, self._flow.data
        if data.isdisjoint(inputs):
            return  # numbers among themselves
        for position, operand in enumerate(inputs):
            reads = self._flow.behind([operand]) if operand not in data else None
            if not reads:
                continue
            if self._varies(reads):
                self.keep(reads, step.kind, _ARITHMETIC)
            elif not single_number(step, position):
                self.keep(reads, step.kind, _SEVERAL)

    def _varies(self, reads: Iterable[Read]) -> bool:
        return any(
            read[1] != RANK and not is_fixed(self._tracker, self._flow, read) for read in reads
        )
