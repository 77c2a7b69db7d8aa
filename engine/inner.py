r"""Comparing inside: where the outputs of a model cannot tell two programs apart.

A model whose outputs are all zero (an untrained head of zeros), integers (the class itself) or
empty (no box was found) gives the same whatever came before. Then every tensor that the compact
program computes is compared with the surviving part of the same tensor of the reference:

    e = \max_k \max |C_k - R_k| / \max(|R_k|, 10^{-6} \max_j |R_j|)

over the operators k that ran, and over their finite values: infinities must lie at the same
places (attention masks hold them), and NaN leaves nothing to compare. It proves more than outputs
do, and costs memory for all of them.
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
from engine.not_a_number import first_nan
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
    nan = first_nan(original, doubled, Restricted(original, coupling, removed))
    if nan:
        return error, f"{nan}: nothing can be compared"
    return error, f"{seen}, and inner tensors do not agree: {UNLIKE_INSIDE}"


UNLIKE_INSIDE = "other operators ran, or shapes or infinite values differ, or all of them are zero"


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
    largest = max((_largest(tensor) for _, tensor in reference.kept), default=0.0)
    if not largest:
        return math.inf
    worst = 0.0
    for (_, expected), (_, own) in zip(reference.kept, found.kept, strict=True):
        if expected.shape != own.shape or bool((expected.isnan() | own.isnan()).any()):
            return math.inf
        finite = torch.isfinite(expected)
        if not torch.equal(expected[~finite], own[~torch.isfinite(own)]):
            return math.inf
        difference = _largest((expected - own)[finite])
        worst = max(worst, difference / max(_largest(expected), _FLOOR * largest))
    return worst


def _largest(tensor: torch.Tensor) -> float:
    finite = tensor[torch.isfinite(tensor)]
    return float(finite.abs().max()) if finite.numel() else 0.0


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
