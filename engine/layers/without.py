"""A program run as if some of its branches were not there.

Each sum gives its x, and everything else runs as it is: the reference for what a removal computes,
and the way to judge a branch without touching the program. `x + f` becomes a copy of x, `x.add_(f)`
x itself, and `f.add_(x)` f overwritten by x, so that all names of that memory see what they should.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from engine.layers.branches import Branch, sums
from engine.structure import map_tensors
from engine.torchscript.instructions import Instruction
from engine.torchscript.interpreter import Interpreter, PlainVisitor, run_operator
from engine.torchscript.program import Program


@torch.no_grad()
def run_without(program: Program, branches: Iterable[Branch], inputs: Sequence[Any]) -> Any:
    """Outputs of forward with x in place of the sums of these branches.

    Args:
        program: the one the branches were found on, or a copy; it may write to its own buffers.
    """
    every = sums(program)
    kept = {every[branch.number].index: branch.kept for branch in branches}
    return run_seeded(program, _Shortcuts(kept), inputs)


def run_seeded(program: Program, visitor: PlainVisitor, inputs: Sequence[Any]) -> Any:
    """Outputs of forward; what is random in it is the same each time."""
    # The program may change its arguments in place.
    placed = [map_tensors(value, torch.Tensor.clone) for value in inputs]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Interpreter(program, visitor).run(placed)


class _Shortcuts(PlainVisitor):
    def __init__(self, kept: dict[int, int]) -> None:
        self._kept = kept

    def operator(self, instruction: Instruction, arguments: list[Any]) -> Any:
        if instruction.index not in self._kept:
            return run_operator(instruction, arguments)
        position = self._kept[instruction.index]
        x: torch.Tensor = arguments[position]
        if instruction.kind == "aten::add":
            return x.clone()
        return x if position == 0 else arguments[0].copy_(x)
