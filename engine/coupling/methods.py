"""Exported methods besides forward: which of them are pruned along, and on what inputs.

A method that is understood is put behind forward in one joint program, and all that follows
(coupling, compaction, certificate) is done to the joint program. To be understood it must

1. have inputs: what forward gives it where forward calls it; nothing where it takes nothing;
   forward's own inputs where it hands them on to forward or takes the same types; what an
   understood method gives where that is of the type it takes;
2. run on them, by the TorchScript runtime and step by step, at the batch size of the example and
   at another one, unless forward is fixed to its batch size too;
3. leave the program as it was, and read nothing that forward writes: otherwise what it gives
   depends on what was called before.

Inputs found by their types may be of other sizes than what the method is meant for. So where their
sizes choose a path, what the other paths read stays whole, as where data chooses.

What any other method reads stays whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine.coupling.labels import Reason
from engine.coupling.method_inputs import CALLED, PASSED, MethodInputs
from engine.coupling.method_probe import MethodProbe, NotFollowed
from engine.coupling.tracker import Tracker
from engine.torchscript.dependence import attribute_paths
from engine.torchscript.joint import JointProgram
from engine.torchscript.program import Program


@dataclass(frozen=True)
class Methods:
    """Exported methods of a program, by what the analysis makes of them.

    Attributes:
        sources: for each method that is pruned along, in order, where its inputs come from.
        refused: why each other one is left as it is.
    """

    sources: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def join(self, program: Program) -> Program:
        """Forward and these methods as one program; the program itself without any."""
        return JointProgram(program, ["forward", *self.sources]) if self.sources else program

    def guessed(self, joint: Program) -> list[int]:
        """Values of the joint program that are inputs found by their type alone."""
        if not isinstance(joint, JointProgram):
            return []
        sources = ["", *self.sources.values()]
        return [
            value
            for part, source in zip(joint.parts, sources, strict=True)
            if source not in {"", CALLED, PASSED}
            for value in part.inputs[1:]
        ]

    def apart(self, outputs: Any) -> tuple[Any, ...]:
        """Outputs of a joint program, method by method; forward's are the first."""
        return outputs if self.sources else (outputs,)

    def inputs(self, program: Program, inputs: Sequence[Any]) -> list[Any]:
        """Arguments of the joint program.

        Args:
            program: forward and the methods are run where their results are inputs.
            inputs: of forward.
        """
        if not self.sources:
            return list(inputs)
        joined = MethodInputs(program, inputs).of_forward()
        for own in self.inputs_by_name(program, inputs).values():
            joined += own
        return joined

    def inputs_by_name(self, program: Program, inputs: Sequence[Any]) -> dict[str, list[Any]]:
        """Arguments of each method alone; see `inputs`."""
        found = MethodInputs(program, inputs)
        return {method: found.of(method, source) for method, source in self.sources.items()}


def understand(program: Program, inputs: Sequence[Any]) -> Methods:
    """Look at every exported method of a program.

    Args:
        inputs: positional arguments of forward.
    """
    methods = Methods()
    # The order in which a file lists its methods is another one once it is saved again.
    waiting = sorted(program.other_methods())
    if not waiting:
        return methods
    probe = MethodProbe(program, inputs)
    if not probe.ready:
        methods.refused.update(dict.fromkeys(waiting, "forward does not run on the example"))
        return methods
    # What one method gives may be what another takes: again until nothing is added.
    before = -1
    while waiting and before != len(methods.sources):
        before = len(methods.sources)
        for method in waiting:
            try:
                methods.sources[method] = probe.source(method, methods.sources)
                methods.refused.pop(method, None)
            except NotFollowed as refusal:
                methods.refused[method] = str(refusal)
        waiting = [name for name in waiting if name not in methods.sources]
    return methods


def freeze_other_methods(tracker: Tracker, program: Program, methods: Methods) -> None:
    """Freeze every weight that a method reads which is not pruned along."""
    for method, why in methods.refused.items():
        read = set(attribute_paths(program.method_block(method)).values())
        for item in tracker.space.ranges:
            if item.tensor and read.intersection(
                tracker.tape.aliases.get(item.tensor, [item.tensor])
            ):
                labels = np.arange(item.start, item.start + item.size, dtype=np.int64)
                text = (
                    f"the exported method `{method}` reads this weight, and {why} "
                    f"(as `_{method}` it would be private, and free)"
                )
                tracker.space.freeze(labels, Reason(method, text))
