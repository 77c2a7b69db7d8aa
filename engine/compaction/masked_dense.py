"""The masked-dense reference: the original with every slice of the removed channels set to zero.

A removed channel then produces zero, and whatever reads it multiplies by zero, so where every
operator acts on each channel alone, its outputs must equal the compact model's to rounding.

The original is run step by step, in float64, without a copy of it: each weight is converted and
masked when it is read, and its memory serves the next one once nothing refers to it. Only small
weights are kept for the length of a run, for a loop reads them in every round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from engine.calling import copies
from engine.compaction.survivors import Components, Survivors
from engine.coupling import Coupling
from engine.torchscript.dependence import written_attributes
from engine.torchscript.instructions import Instruction
from engine.torchscript.interpreter import Interpreter, PlainVisitor, run_operator
from engine.torchscript.precision import lifted_types, made_in_float64
from engine.torchscript.program import Program
from engine.torchscript.workspace import Workspace

_BAKED = "constant:"
_KEPT_BYTES = 2**26
"""Masked weights that are kept for the length of a run, together."""


@torch.no_grad()
def run_masked(
    program: Program, coupling: Coupling, removed: Components, inputs: Sequence[Any]
) -> Any:
    """Outputs of the masked-dense program, in float64.

    Args:
        program: the original.
        inputs: arguments of forward; floats in float64.
    """
    with made_in_float64():
        visitor = MaskedDense(program, coupling, removed)
        return Interpreter(program, visitor).run(copies(inputs))


class MaskedDense(PlainVisitor):
    """Reads tensors masked and in float64."""

    def __init__(self, program: Program, coupling: Coupling, removed: Components) -> None:
        self.survivors = Survivors(coupling, removed)
        self._canonical = {
            name: canonical for canonical, names in coupling.tape.aliases.items() for name in names
        }
        self._written = written_attributes(program.block)
        self._held: dict[str, torch.Tensor] = {}
        self._room = _KEPT_BYTES
        self._workspace = Workspace()

    def tensor(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor masked; what the program writes to is made once, as memory of its own."""
        if name in self._held:
            return self._held[name]
        if name in self._written:
            self._held[name] = self._masked(name, tensor.detach().clone(), torch.Tensor.double)
        elif tensor.numel() * 8 <= self._room:
            self._held[name] = self._masked(name, tensor.detach(), torch.Tensor.double)
            self._room -= tensor.numel() * 8
        else:
            return self._masked(name, tensor.detach(), self._workspace.converted)
        return self._held[name]

    def operator(self, instruction: Instruction, arguments: list[Any]) -> Any:
        """The operator, with float64 in the place of any lower type it names."""
        outputs = run_operator(instruction, lifted_types(instruction, arguments))
        if instruction.kind == "aten::_weight_norm":
            # g v / |v| of a removed filter: zero over zero, and the weight of it is zero.
            outputs = outputs.masked_fill(arguments[0] == 0, 0.0)
        return outputs

    def _masked(
        self, name: str, tensor: torch.Tensor, converted: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        canonical = self._canonical.get(name)
        kept = {} if canonical is None else self.survivors.kept(canonical)
        given = tensor
        if tensor.is_floating_point() and (kept or tensor.dtype != torch.float64):
            tensor = converted(tensor)
        elif tensor.is_complex():
            tensor = tensor.to(torch.complex128)
        if kept and tensor is given:
            tensor = tensor.clone()
        return _zero_(tensor, kept)


@torch.no_grad()
def zeroed(program: Program, coupling: Coupling, removed: Components) -> Program:
    """The masked-dense program in its own precision, to be measured: a twin with zeroed slices.

    Tensors baked into the graph stay as they are.
    """
    survivors = Survivors(coupling, removed)
    masked = program.twin(share=True)
    held = masked.attributes()
    for canonical, names in coupling.tape.aliases.items():
        kept = survivors.kept(canonical)
        tied = [name for name in names if name in held]
        if kept and tied:
            tensor = _zero_(held[tied[0]].detach().clone(), kept)
            for name in tied:
                masked.set_tensor(name, tensor)
    return masked


def no_zeros_for(coupling: Coupling, removed: Components) -> str:
    """Why zeros in attributes (`zeroed`) would not be the masked model; empty where they are."""
    tape = coupling.tape
    survivors = Survivors(coupling, removed)
    if any(name.startswith(_BAKED) and survivors.kept(name) for name in tape.tensors):
        return "channels of a tensor baked into the graph are among those removed"
    if any(step.kind == "aten::_weight_norm" for step in tape.steps):
        return "the norm of a zeroed filter divides zero by zero"
    return ""


def _zero_(tensor: torch.Tensor, kept: Mapping[int, torch.Tensor]) -> torch.Tensor:
    """Zero in place what is not kept."""
    for dim, indices in kept.items():
        gone = torch.ones(tensor.shape[dim], dtype=torch.bool, device=tensor.device)
        gone[indices.to(tensor.device)] = False
        tensor.index_fill_(dim, gone.nonzero().flatten(), 0)
    return tensor
