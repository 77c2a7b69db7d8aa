"""What an instruction does besides giving its outputs."""

from __future__ import annotations

from functools import lru_cache

import torch

from engine.torchscript.instructions import Instruction

_SPEAKING = frozenset({"prim::RaiseException", "prim::Print", "aten::warn"})


def written(instruction: Instruction) -> tuple[int, ...]:
    """Positions of the operands that it changes in place: tensors, lists or dictionaries."""
    return () if instruction.operator is None else written_positions(instruction.node.schema())


def speaks(instruction: Instruction) -> bool:
    """Whether it raises, warns or prints."""
    return instruction.kind in _SPEAKING


def lasts(instruction: Instruction) -> bool:
    """Whether it changes an attribute of the module, or does what is not known."""
    return instruction.kind == "prim::SetAttr" or instruction.kind.startswith("prim::Call")


@lru_cache(maxsize=4096)
def written_positions(schema: str) -> tuple[int, ...]:
    """Positions of the operands that an operator with this schema changes in place."""
    arguments = torch._C.parse_schema(schema).arguments
    return tuple(
        position
        for position, argument in enumerate(arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    )
