"""Rewinding: survivors go back to the weights they had at step k, the rest stays at zero.

    W = m . W_k

with k = 0 for the lottery ticket (Frankle & Carbin 2019, "The Lottery Ticket Hypothesis", ICLR),
and a small k > 0 where networks are too deep to train from k = 0 (Frankle et al. 2020, "Linear
Mode Connectivity and the Lottery Ticket Hypothesis", ICML). Biases, normalisation and the buffers
go back too: they belong to the network of step k.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from engine.masks import apply_masks
from engine.torchscript.program import Program


def snapshot(program: Program) -> dict[str, Tensor]:
    """Copies of every parameter and buffer, on the CPU."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in program.attributes().items()
    }


def rewind(program: Program, initial: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Program:
    """A program with the initial values where masks are True (or missing), and zero elsewhere."""
    fresh = program.twin()
    write(fresh, initial)
    apply_masks(fresh.parameters(), masks)
    return fresh


@torch.no_grad()
def write(program: Program, values: Mapping[str, Tensor]) -> None:
    """Copy values into a program's own tensors."""
    for name, tensor in program.attributes().items():
        if name in values:
            tensor.copy_(values[name])
