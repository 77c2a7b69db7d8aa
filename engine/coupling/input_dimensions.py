"""Along which dimension a weight reads its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import engine.coupling.rules  # noqa: F401  registers the rules
from engine.coupling.tracker import Tracker
from engine.tape import record
from engine.torchscript.program import Program


def input_dimensions(program: Program, inputs: Sequence[Any]) -> dict[str, int]:
    """The dimension of inputs of every weight that has one, by each of its names.

    Dimension 1 of a convolution or a linear layer, 0 of a transposed convolution or of a matrix
    that stands at the right of its product. Tables that are looked up have none, and neither has
    a dimension of size 1.

    Args:
        program: any.
        inputs: positional arguments of forward.

    Raises:
        ModelRaised: the model refuses these inputs.
    """
    tape = record(program, inputs)
    tracker = Tracker(tape)
    tracker.run()
    found: dict[str, int] = {}
    for item in tracker.space.ranges:
        if item.tensor and tracker.roles.get(item.start) == "input":
            for name in tape.aliases.get(item.tensor, [item.tensor]):
                found.setdefault(name, item.dim)
    return found
