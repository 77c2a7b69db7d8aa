"""Which parameters and buffers the BatchNorm operators of a graph read.

In an inlined graph an attribute is reached by a chain of `prim::GetAttr` from the module itself,
so the path of every operand is known without running anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from engine.torchscript.instructions import Block, Instruction, walk

BATCH_NORMS = {"aten::batch_norm": "training", "aten::native_batch_norm": "training"}
"""Operators, and the argument that makes them use batch statistics."""


@dataclass(frozen=True)
class BatchNorm:
    """One BatchNorm operator.

    Attributes:
        instruction: the operator.
        scale: name of its weight (gamma), or None where it has none.
        statistics: names of its running mean and variance, as far as they are attributes.
    """

    instruction: Instruction
    scale: str | None
    statistics: tuple[str, ...]

    @property
    def layers(self) -> set[str]:
        """The layers its tensors belong to."""
        names = [*self.statistics, *([] if self.scale is None else [self.scale])]
        return {name.rpartition(".")[0] for name in names}


def batch_norms(block: Block) -> Iterator[BatchNorm]:
    """Every BatchNorm of the graph of forward, in branches too."""
    paths = attribute_paths(block)
    for instruction in walk(block):
        if instruction.kind not in BATCH_NORMS or instruction.operator is None:
            continue
        read = {
            name: paths.get(value)
            for name, value in zip(instruction.operator.arguments, instruction.inputs, strict=True)
        }
        statistics = [read.get("running_mean"), read.get("running_var")]
        yield BatchNorm(
            instruction,
            scale=read.get("weight"),
            statistics=tuple(name for name in statistics if name),
        )


def in_loops(block: Block) -> set[int]:
    """Indices of the instructions that a pass may run more than once."""
    return {
        inner.index
        for instruction in walk(block)
        if instruction.kind == "prim::Loop"
        for body in instruction.blocks
        for inner in walk(body)
    }


def attribute_paths(block: Block) -> dict[int, str]:
    """Value numbers of attributes, with the dotted path each is read from."""
    # The first input is the module itself.
    paths = {block.inputs[0]: ""}
    for instruction in walk(block):
        if instruction.kind == "prim::GetAttr" and instruction.inputs[0] in paths:
            parent = paths[instruction.inputs[0]]
            paths[instruction.outputs[0]] = f"{parent}.{instruction.name}".lstrip(".")
    return paths
