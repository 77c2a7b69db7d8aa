"""The masked-dense reference: the original with every slice of the removed channels set to zero.

A removed channel then produces zero, and whatever reads it multiplies by zero, so where every
operator acts on each channel alone, its outputs must equal the compact model's to rounding.
"""

from __future__ import annotations

import torch

from engine.compaction.survivors import Components, Survivors
from engine.coupling import Coupling
from engine.torchscript.edit import GraphEditor
from engine.torchscript.instructions import walk
from engine.torchscript.program import Program


@torch.no_grad()
def mask_dense(program: Program, coupling: Coupling, removed: Components) -> Program:
    """A copy of the program whose removed slices are zero; shapes stay."""
    survivors = Survivors(coupling, removed)
    masked = program.twin() if not _cuts_constants(survivors, coupling) else program.copy()
    editor = GraphEditor(masked)
    attributes = masked.attributes()
    for canonical, names in coupling.tape.aliases.items():
        kept = survivors.kept(canonical)
        if not kept:
            continue
        if canonical.startswith("constant:"):
            index = int(canonical.partition(":")[2])
            instruction = next(item for item in walk(masked.block) if item.index == index)
            editor.replace_constant(instruction, _zeroed(instruction.constant, kept))
            continue
        for name in names:
            tensor = attributes[name]
            tensor.copy_(_zeroed(tensor.detach(), kept))
    masked.edited()
    return masked


def _cuts_constants(survivors: Survivors, coupling: Coupling) -> bool:
    return any(
        name.startswith("constant:") and survivors.kept(name) for name in coupling.tape.aliases
    )


def _zeroed(tensor: torch.Tensor, kept: dict[int, torch.Tensor]) -> torch.Tensor:
    tensor = tensor.clone()
    for dim, indices in kept.items():
        gone = torch.ones(tensor.shape[dim], dtype=torch.bool, device=tensor.device)
        gone[indices.to(tensor.device)] = False
        tensor.index_fill_(dim, gone.nonzero().flatten(), 0)
    return tensor
