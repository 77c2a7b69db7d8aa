"""Programs and removals for the core's tests."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from secateur.report import Certificate
from torch import nn

from engine.certify import certify
from engine.compaction import compact
from engine.coupling import Coupling, couple
from engine.torchscript.program import Program

Inputs = Sequence[torch.Tensor]


def uploaded(module: torch.jit.ScriptModule) -> Program:
    """What the engine sees of a user's file."""
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    return Program.load(buffer.getvalue())


def traced(model: nn.Module, inputs: Inputs) -> Program:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return uploaded(torch.jit.trace(model.eval(), tuple(inputs), check_trace=False))


def scripted(model: nn.Module) -> Program:
    return uploaded(torch.jit.script(model.eval()))


def half(coupling: Coupling, seed: int = 0) -> npt.NDArray[np.int64]:
    """Half of every group, at random."""
    rng = np.random.default_rng(seed)
    parts = [
        rng.permutation(group.components)[: group.components.size // 2] for group in coupling.groups
    ]
    return np.concatenate([*parts, np.empty(0, np.int64)])


def halve(program: Program, inputs: Inputs) -> tuple[Program, Certificate, Coupling]:
    """Remove half of every group; the compact program and its certificate."""
    coupling = couple(program, inputs)
    removed = half(coupling)
    assert removed.size, [item.reason for item in coupling.frozen]
    compacted = compact(program, coupling, removed, inputs)
    return compacted, certify(program, compacted, coupling, removed, inputs), coupling


def parameter_count(program: Program) -> int:
    return sum(tensor.numel() for tensor in program.parameters().values())


def group_sizes(coupling: Coupling) -> dict[str, int]:
    return {group.name: int(group.components.size) for group in coupling.groups}
