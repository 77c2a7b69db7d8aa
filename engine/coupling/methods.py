"""Methods besides forward: what they read stays whole, for only forward is repaired."""

from __future__ import annotations

import numpy as np

from engine.coupling.labels import Reason
from engine.coupling.tracker import Tracker
from engine.torchscript.instructions import walk
from engine.torchscript.program import Program


def freeze_other_methods(tracker: Tracker, program: Program) -> None:
    """Freeze every weight that an exported method other than forward reads."""
    for method in program.other_methods():
        block = program.method_block(method)
        paths: dict[int, str] = {block.inputs[0]: ""}
        read: set[str] = set()
        for instruction in walk(block):
            if instruction.kind == "prim::GetAttr" and instruction.inputs[0] in paths:
                owner = paths[instruction.inputs[0]]
                path = f"{owner}.{instruction.name}" if owner else str(instruction.name)
                paths[instruction.outputs[0]] = path
                read.add(path)
        for item in tracker.space.ranges:
            if item.tensor and read.intersection(
                tracker.tape.aliases.get(item.tensor, [item.tensor])
            ):
                labels = np.arange(item.start, item.start + item.size, dtype=np.int64)
                layer = item.tensor.rpartition(".")[0]
                text = (
                    f"the exported method `{method}` reads this weight "
                    f"(as `_{method}` it would be private, and free)"
                )
                tracker.space.freeze(labels, Reason(layer, method, text))
