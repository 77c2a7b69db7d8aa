r"""How much a branch matters: lowest first.

Let y be what the program gives and :math:`y_b` what it gives without the branch b (and without
those that are gone already).

    output_effect:    :math:`\lVert y - y_b \rVert / \lVert y \rVert`, the mean over all outputs
    block_influence:  :math:`1 - E_t \cos(x_t, x_t + f(x)_t)` over the positions t of all samples
    l1_norm:          mean of |w| over the branch's own weights
    l2_norm:          root of the mean of w^2
    random:           uniform, seeded by the branch's name

Block influence is ShortGPT's (Men et al. 2024) and looks only at the branch's own sum, in one run
for all branches. The output effect sees what later layers make of the change, and is measured anew
once a branch is gone: with n branches, k removals take n + (n - 1) + ... + (n - k + 1) runs.

A position is a vector of features: along dimension 1 in a branch that convolves, along the last one
otherwise. The norms are means, since a branch of many small weights is no more important for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf, isfinite, sqrt
from typing import Any

import torch
from torch import Tensor

from engine.errors import EngineError
from engine.layers.branches import Branch, sums
from engine.layers.without import run_seeded, run_without
from engine.scores import criterion
from engine.seeds import generator
from engine.structure import tensors_in
from engine.torchscript.instructions import Instruction
from engine.torchscript.interpreter import PlainVisitor, run_operator
from engine.torchscript.program import Program

Scores = Callable[[Sequence[Branch], Sequence[Branch]], list[float]]
"""Candidates, and what is gone already, to one score for each candidate."""


@torch.no_grad()
def branch_scores(
    name: str, program: Program, branches: Sequence[Branch], inputs: Sequence[Any], seed: int
) -> Scores:
    """The scores of a criterion; infinite where the program fails without the branch.

    Args:
        name: of the criterion.
        program: the one the branches were found on.
        inputs: to judge on; more than one sample where there is data.
        seed: for random scores.
    """
    if name == "output_effect":
        return _OutputEffect(program, inputs)
    if name == "block_influence":
        fixed = block_influence(program, branches, inputs)
    elif criterion(name).draw is not None:
        fixed = {
            branch.number: float(torch.rand((), generator=generator(seed, "random", branch.name)))
            for branch in branches
        }
    else:
        tensors = program.tensors()
        fixed = {branch.number: _magnitude(name, branch, tensors) for branch in branches}
    return lambda candidates, _gone: [fixed[branch.number] for branch in candidates]


class _OutputEffect:
    def __init__(self, program: Program, inputs: Sequence[Any]) -> None:
        self._program = program.twin()
        self._inputs = inputs
        self._whole = self._run([])

    def __call__(self, candidates: Sequence[Branch], gone: Sequence[Branch]) -> list[float]:
        return [self._effect([*gone, branch]) for branch in candidates]

    def _effect(self, gone: Sequence[Branch]) -> float:
        try:
            return output_change(self._whole, self._run(gone))
        except (EngineError, RuntimeError):
            return inf

    def _run(self, gone: Sequence[Branch]) -> Any:
        return run_without(self._program, gone, self._inputs)


def output_change(whole: Any, without: Any) -> float:
    """Mean over all floating outputs of the relative change in the Euclidean norm."""
    before, after = (
        [tensor.double() for tensor in tensors_in(value) if tensor.is_floating_point()]
        for value in (whole, without)
    )
    if [tensor.shape for tensor in before] != [tensor.shape for tensor in after]:
        return inf
    changes = []
    for y, y_b in zip(before, after, strict=True):
        size, change = float(y.norm()), float((y - y_b).norm())
        changes.append(change / size if size > 0 else (inf if change else 0.0))
    mean = sum(changes) / max(len(changes), 1)
    return mean if isfinite(mean) else inf


def block_influence(
    program: Program, branches: Sequence[Branch], inputs: Sequence[Any]
) -> dict[int, float]:
    """The influence of every branch, by number, from one run."""
    every = sums(program)
    visitor = _Influence({every[branch.number].index: branch for branch in branches})
    run_seeded(program.twin(), visitor, inputs)
    return visitor.found


class _Influence(PlainVisitor):
    def __init__(self, branches: Mapping[int, Branch]) -> None:
        self.found: dict[int, float] = {}
        self._branches = branches

    @torch.no_grad()
    def operator(self, instruction: Instruction, arguments: list[Any]) -> Any:
        branch = self._branches.get(instruction.index)
        if branch is None:
            return run_operator(instruction, arguments)
        x = arguments[branch.kept].clone()
        total: Tensor = run_operator(instruction, arguments)
        dim = 1 if branch.convolves and x.dim() > 1 else -1
        cosine = torch.cosine_similarity(x.double(), total.double(), dim=dim)
        self.found[branch.number] = 1 - float(cosine.mean())
        return total


def _magnitude(name: str, branch: Branch, tensors: Mapping[str, Tensor]) -> float:
    own = [
        tensors[weight].detach() for weight in branch.weights if tensors[weight].is_floating_point()
    ]
    count = sum(weight.numel() for weight in own)
    if name == "l1_norm":
        return sum(float(weight.double().abs().sum()) for weight in own) / count
    return sqrt(sum(float(weight.double().square().sum()) for weight in own) / count)
