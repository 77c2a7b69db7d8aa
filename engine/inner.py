r"""Comparing inside: where the outputs of a model cannot tell two programs apart.

A model whose outputs are all zero (an untrained head of zeros), integers (the class itself) or
empty (no box was found) gives the same whatever came before. Then every tensor that the compact
program computes is compared with the surviving part of the same tensor of the reference:

    e = \max_k \max |C_k - R_k| / \max(|R_k|, 10^{-6} \max_j |R_j|)

over the operators k that ran; the same infinity in both is no difference. It
proves more than outputs do, and costs memory for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from engine.calling import copies
from engine.compaction.restricted import Restricted
from engine.compaction.survivors import Components
from engine.comparison import same_start
from engine.coupling import Coupling
from engine.structure import map_tensors, tensors_in
from engine.tape import flatten
from engine.torchscript.instructions import Instruction
from engine.torchscript.interpreter import Interpreter, PlainVisitor
from engine.torchscript.precision import in_float64
from engine.torchscript.program import Program

_FLOOR = 1e-6


def look_inside(
    original: Program,
    compacted: Program,
    coupling: Coupling,
    removed: Components,
    inputs: Sequence[Any],
) -> tuple[float, str]:
    """How far the programs differ inside, and what to say of it."""
    doubled = [
        map_tensors(value, lambda own: own.double() if own.is_floating_point() else own)
        for value in inputs
    ]
    error = inner_error(original, in_float64(compacted), coupling, removed, doubled)
    whose = "the outputs" if len(original.methods) == 1 else "the outputs of a method"
    seen = f"{whose} hold nothing but zeros, integers or NaN on the example"
    if math.isfinite(error):
        return error, f"{seen}, so all inner tensors were compared: they differ by {error:.2g}"
    spoilt = [f"`{name}`" for name, own in original.parameters().items() if not _finite(own)]
    weights = f" ({', '.join(spoilt[:3])} hold NaN or infinity)" if spoilt else ""
    return error, f"{seen}, and so do inner tensors{weights}: nothing can be compared"


def _finite(tensor: torch.Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def silent(outputs: Any) -> bool:
    """Whether outputs hold no fraction that is finite and not zero."""
    for tensor in tensors_in(outputs):
        inexact = tensor.is_floating_point() or tensor.is_complex()
        if inexact and bool((torch.isfinite(tensor) & (tensor != 0)).any()):
            return False
    return not any(value and math.isfinite(value) for value in _fractions(outputs))


def _fractions(outputs: Any) -> list[float]:
    if isinstance(outputs, float):
        return [outputs]
    if isinstance(outputs, list | tuple):
        return [value for item in outputs for value in _fractions(item)]
    if isinstance(outputs, dict):
        return [value for item in outputs.values() for value in _fractions(item)]
    return []


@torch.no_grad()
def inner_error(
    original: Program,
    compact: Program,
    coupling: Coupling,
    removed: Components,
    inputs: Sequence[Any],
) -> float:
    """The error e; infinite where the programs do not run alike or a value is not finite.

    Args:
        original: the program before the removal; it is masked as it runs.
        compact: the compact one, in float64.
    """
    reference, found = _Kept(original, coupling, removed), _Found()
    with same_start(original):
        Interpreter(original, reference).run(copies(inputs))
    with same_start(compact):
        Interpreter(compact, found).run(copies(inputs))
    if [kind for kind, _ in reference.kept] != [kind for kind, _ in found.kept]:
        return math.inf
    largest = max((_size(tensor) for _, tensor in reference.kept), default=0.0)
    if not 0 < largest < math.inf:
        return math.inf
    worst = 0.0
    for (_, expected), (_, own) in zip(reference.kept, found.kept, strict=True):
        if expected.shape != own.shape:
            return math.inf
        if expected.numel():
            difference = _largest(_apart(expected, own))
            worst = max(worst, difference / max(_size(expected), _FLOOR * largest))
    return math.inf if math.isnan(worst) else worst


def _apart(expected: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """The difference; none where both hold the same infinity, as masks of attention do."""
    return torch.where(torch.isinf(expected) & (expected == own), 0.0, expected - own)


def _size(tensor: torch.Tensor) -> float:
    """Largest value that is not infinite."""
    return _largest(torch.where(torch.isinf(tensor), 0.0, tensor))


def _largest(tensor: torch.Tensor) -> float:
    largest = float(tensor.abs().max()) if tensor.numel() else 0.0
    return largest if math.isfinite(largest) else math.inf


class _Kept(Restricted):
    """The reference, keeping the surviving part of all fractions."""

    def __init__(self, program: Program, coupling: Coupling, removed: Components) -> None:
        super().__init__(program, coupling, removed)
        self.kept: list[tuple[str, torch.Tensor]] = []

    def operator(self, instruction: Instruction, arguments: list[Any]) -> Any:
        outputs = super().operator(instruction, arguments)
        step = self.step
        if step is not None:
            made = tensors_in(outputs)
            for value, tensor in zip(flatten(step.outputs), made, strict=True):
                if tensor.is_floating_point() and tensor.layout == torch.strided:
                    self.kept.append((instruction.kind, self.cut(value, tensor).clone()))
        return outputs


class _Found(PlainVisitor):
    """The compact program, keeping all fractions."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, torch.Tensor]] = []

    def operator(self, instruction: Instruction, arguments: list[Any]) -> Any:
        outputs = super().operator(instruction, arguments)
        for tensor in tensors_in(outputs):
            if tensor.is_floating_point() and tensor.layout == torch.strided:
                self.kept.append((instruction.kind, tensor.clone()))
        return outputs
