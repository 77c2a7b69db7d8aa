"""Inner values of a program, shown while it runs.

A node behind the one that computes a value stores it in an attribute of the program, and whoever
called the program reads it there. So forward gives what it gave, values in branches and loops can
be shown as well as any other, and gradients flow through what was stored. Where the program does
not come by the node, the attribute stays empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from engine.torchscript.instructions import Instruction
from engine.torchscript.program import Program


class Exposed:
    """The values that a program shows, by name.

    Args:
        program: a fresh copy, with a class of its own and a graph that has not run.
        values: by name, an instruction of the program's own block and which output of it.
    """

    def __init__(self, program: Program, values: Mapping[str, tuple[Instruction, int]]) -> None:
        self._module = program._c
        self._attributes = {name: f"secateur_value_{at}" for at, name in enumerate(values)}
        optional = torch._C.OptionalType(torch._C.TensorType.get())
        for attribute in self._attributes.values():
            self._module._register_attribute(attribute, optional, None)
        places = {name: (*program.place(item), output) for name, (item, output) in values.items()}
        for name, (node, graph, output) in places.items():
            _store(graph, node, output, self._attributes[name])

    def take(self) -> dict[str, Tensor | None]:
        """What the last run stored; None where it did not come by. The program forgets them."""
        taken: dict[str, Tensor | None] = {}
        for name, attribute in self._attributes.items():
            taken[name] = self._module.getattr(attribute)
            # The graph of gradients behind it must not outlive the step.
            self._module.setattr(attribute, None)
        return taken


def _store(graph: Any, node: Any, output: int, attribute: str) -> None:
    value = node.outputsAt(output)
    graph.setInsertPoint(node)
    nothing = graph.insertConstant(None)
    # A copy: what follows may write to the value in place.
    copied = graph.create("aten::clone", [value, nothing], 1)
    copied.insertAfter(node)
    copied.output().setType(torch._C.TensorType.get())
    owner = next(iter(graph.inputs()))
    stored = graph.create("prim::SetAttr", [owner, copied.output()], 0)
    stored.s_("name", attribute)
    stored.insertAfter(copied)
