"""Remove branches from a program.

One after the other, on one fresh copy: the run is followed again after each, so that what is alive
and what is written in place is known for the program as it then is. Instructions that only the
branch needed are deleted. Tensors that nothing reads any more cannot be taken out of a TorchScript
class, whose attributes are fixed; they are replaced by empty ones, which take no room in the file
and keep the names of the state dictionary.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from engine.errors import EngineError
from engine.layers.branches import Branch, sums
from engine.layers.consequences import consequences, needs_clone
from engine.layers.flow import record_flow
from engine.layers.reading import settled, unpacked
from engine.torchscript.edit import GraphEditor
from engine.torchscript.program import Program


class BranchNeeded(EngineError):
    """Something that stays needs what only the branch should need."""

    type = "branch-needed"


@dataclass(frozen=True)
class Removal:
    """A program without some branches, and the names of the tensors that are empty in it."""

    program: Program
    emptied: tuple[str, ...]


@torch.no_grad()
def remove_branches(
    program: Program, branches: Collection[Branch], inputs: Sequence[Any]
) -> Removal:
    """A new program without these branches.

    Args:
        program: the one the branches were found on.
        branches: those inside of others go with them, named or not.
        inputs: the example they were found on.

    Raises:
        BranchNeeded: a branch's weights would have to stay; its name is in `where`.
    """
    fresh = program.copy()
    fresh.edited()  # read anew, for from here on values are known by their numbers in this graph
    every = sums(fresh)
    inside = frozenset[int]().union(*(branch.inside for branch in branches))
    targets = [
        (branch, every[branch.number].outputs[0])
        for branch in branches
        if branch.number not in inside
    ]
    editor = GraphEditor()
    for instruction, taken in settled(fresh, record_flow(fresh, inputs)).items():
        editor.settle(instruction, taken)
    fresh.edited()
    for instruction, made in unpacked(fresh.block).items():
        editor.unpack(instruction, made)
    fresh.edited()
    emptied: dict[str, None] = {}
    for branch, value in targets:
        flow = record_flow(fresh, inputs)
        step = next(item for item in flow.steps if value in item.instruction.outputs)
        result = consequences(fresh, flow, step, branch.kept)
        if result.obstacle is not None:
            raise BranchNeeded(
                f"the branch {branch.name} cannot be removed: {result.obstacle}",
                where=branch.name,
                hint="exclude its layers",
            )
        clone = needs_clone(flow, step, branch.kept, result.left)
        editor.bypass(step.instruction, branch.kept, clone=clone)
        editor.keep_only(fresh.block, result.kept)
        fresh.edited()
        emptied.update(dict.fromkeys(result.dropped))
    tensors = fresh.attributes()
    for name in emptied:
        fresh.set_tensor(name, tensors[name].new_empty(0))
    return Removal(fresh, tuple(emptied))
