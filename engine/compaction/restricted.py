"""The restricted reference: masked-dense, whose mixing operators see the survivors only.

LayerNorm and its kin average over channels. In the masked-dense model the removed channels take
part in the average as zeros; in the compact model they do not. To tell this drift, which is a
property of pruning, from a mistake in the compaction, the masked-dense program is run once more
with each mixing operator applied to the surviving channels alone and its result put back in
place. The compact model must equal this reference to rounding, always.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from engine.calling import copies
from engine.compaction.masked_dense import MaskedDense
from engine.compaction.repairs import REPAIRS, Repair
from engine.compaction.steps import StepsInOrder
from engine.compaction.survivors import Components
from engine.coupling import Coupling
from engine.tape import Step, TensorValue, flatten
from engine.torchscript.instructions import Instruction
from engine.torchscript.interpreter import Interpreter
from engine.torchscript.precision import made_in_float64
from engine.torchscript.program import Program


@torch.no_grad()
def run_restricted(
    program: Program, coupling: Coupling, removed: Components, inputs: Sequence[Any]
) -> Any:
    """Outputs of the restricted reference.

    Args:
        program: the original.
        inputs: arguments of forward; floats in float64.
    """
    with made_in_float64():
        visitor = Restricted(program, coupling, removed)
        return Interpreter(program, visitor).run(copies(inputs))


class Restricted(MaskedDense):
    """Reads tensors masked; `step` is what the tape holds of the operator that ran last."""

    def __init__(self, program: Program, coupling: Coupling, removed: Components) -> None:
        super().__init__(program, coupling, removed)
        self._coupling = coupling
        self._mixing = set(coupling.mixed_by_removed(removed))
        self._steps = StepsInOrder(coupling.tape)
        self.step: Step | None = None

    def operator(self, instruction: Instruction, arguments: list[Any]) -> Any:
        """Mixing operators on survivors, all others as they are."""
        step = self.step = self._steps.next(instruction)
        if step is None or f"{step.layer()} ({step.kind})" not in self._mixing:
            return super().operator(instruction, arguments)
        cut = [
            self.cut(value, argument)
            for value, argument in zip(step.arguments, arguments, strict=True)
        ]
        values = list(flatten(step.outputs))
        # Expected shapes in terms of the sizes of this run, whose batch may differ.
        repair = Repair(
            step,
            cut,
            [self.survivors.shape(value.number, value.shape) for value in values],
            self._coupling,
            self.survivors,
        )
        handler = REPAIRS.get(step.kind)
        if handler is not None:
            handler(repair)
        outputs = super().operator(instruction, repair.arguments)
        if len(instruction.outputs) == 1:
            return self._spread(values[0], outputs)
        return [self._spread(value, output) for value, output in zip(values, outputs, strict=True)]

    def _masks(self, value: TensorValue) -> list[tuple[int, torch.Tensor]]:
        labels = self._coupling.labels.get(value.number, [])
        found = []
        for dim, own in enumerate(labels):
            if own is not None:
                mask = self.survivors.mask(own, value.shape[dim])
                if not mask.all():
                    found.append((dim, torch.from_numpy(np.flatnonzero(mask))))
        return found

    def cut(self, value: Any, argument: Any) -> Any:
        """The surviving part of an argument or a result."""
        if isinstance(value, TensorValue):
            for dim, indices in self._masks(value):
                argument = argument.index_select(dim, indices.to(argument.device))
        elif isinstance(value, list) and isinstance(argument, list):
            argument = [self.cut(own, item) for own, item in zip(value, argument, strict=True)]
        return argument

    def _spread(self, value: TensorValue, output: torch.Tensor) -> torch.Tensor:
        for dim, indices in self._masks(value):
            shape = list(output.shape)
            shape[dim] = value.shape[dim]
            whole = output.new_zeros(shape)
            output = whole.index_copy_(dim, indices.to(output.device), output)
        return output
