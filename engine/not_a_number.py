"""Where NaN first appears in a run: the weight that holds it, or the operator that makes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.weak import WeakIdKeyDictionary

from engine.calling import copies
from engine.comparison import GIVES_NAN, same_start
from engine.structure import tensors_in
from engine.torchscript.instructions import Instruction
from engine.torchscript.interpreter import Interpreter, PlainVisitor, Visitor
from engine.torchscript.program import Program


@torch.no_grad()
def first_nan(program: Program, inputs: Sequence[Any], visitor: Visitor | None = None) -> str:
    """A sentence that names the place; empty where no NaN appears.

    Args:
        program: one in float64, or any with a visitor that reads it so.
        inputs: floats in float64.
        visitor: how the program is run; None for as it is.
    """
    watch = _Watch(visitor or PlainVisitor())
    with same_start(program):
        Interpreter(program, watch).run(copies(inputs))
    if not watch.found:
        return ""
    infinite = [
        f"`{name}`"
        for name, own in program.parameters().items()
        if own.is_floating_point() and bool(torch.isinf(own).any())
    ]
    cause = f" ({', '.join(infinite[:3])} hold infinity)" if infinite else ""
    return f"{GIVES_NAN}, first in {watch.found}{cause}"


def holds_nan(tensor: torch.Tensor) -> bool:
    """Whether any element is NaN."""
    inexact = tensor.is_floating_point() or tensor.is_complex()
    return inexact and tensor.layout == torch.strided and bool(tensor.isnan().any())


class _Watch:
    """Another visitor, watched until NaN appears."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self._names: Any = WeakIdKeyDictionary()
        self.found = ""

    def tensor(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        read = self._visitor.tensor(name, tensor)
        self._names[read] = name
        if not self.found and holds_nan(read):
            baked = name.startswith("constant:")
            self.found = "a baked constant" if baked else f"the weight `{name}`"
        return read

    def operator(self, instruction: Instruction, arguments: list[Any]) -> Any:
        outputs = self._visitor.operator(instruction, arguments)
        if not self.found and any(map(holds_nan, tensors_in(outputs))):
            given = any(map(holds_nan, tensors_in(arguments)))
            place = f"the result of {instruction.kind} at {self._layer(instruction, arguments)}"
            self.found = "the inputs" if given else place
        return outputs

    def branch(self, instruction: Instruction, condition: bool) -> bool:
        return self._visitor.branch(instruction, condition)

    def iterations(self, instruction: Instruction, count: int) -> int:
        return self._visitor.iterations(instruction, count)

    def _layer(self, instruction: Instruction, arguments: list[Any]) -> str:
        for tensor in tensors_in(arguments):
            name = str(self._names.get(tensor, ""))
            if name and not name.startswith("constant:"):
                return f"`{name.rpartition('.')[0] or name}`"
        return instruction.location or "an unknown place"
