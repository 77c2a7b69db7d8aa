"""Stability of a network to the noise of SGD: the linear interpolation error barrier.

Train copies from the same weights with different orders of the data. Two copies W1 and W2 lie in
one linearly connected minimum when the error does not rise on the line between them. The barrier
is its highest rise over the mean of the ends:

    E(a) = error of a W1 + (1 - a) W2
    barrier = max over a in [0, 1] of E(a) - (E(1) + E(0)) / 2

(Frankle et al. 2020, "Linear Mode Connectivity and the Lottery Ticket Hypothesis", ICML, section
2, instability analysis). Below about 0.02 they call a network stable, and find that rewinding
works where the ticket is. The line is sampled at a = 0, 0.1 .. 1. Running statistics of
normalisations are interpolated like the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

from secateur.report import Barrier
from torch import Tensor

from engine.lottery.rewinding import write
from engine.torchscript.program import Program

ALPHAS = tuple(step / 10 for step in range(11))


def interpolated(
    first: Mapping[str, Tensor], second: Mapping[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    """a W1 + (1 - a) W2; the ends exactly, and counting buffers those of the first."""
    if alpha in (0.0, 1.0):
        return dict(first if alpha else second)
    return {
        name: alpha * tensor + (1 - alpha) * second[name] if tensor.is_floating_point() else tensor
        for name, tensor in first.items()
    }


def barriers(
    program: Program,
    copies: Sequence[Mapping[str, Tensor]],
    error_of: Callable[[Program], float],
) -> list[Barrier]:
    """The barrier between every two copies, numbered from 1.

    Args:
        program: whose graph the copies are weights of; it stays as it is.
        copies: parameters and buffers by name.
        error_of: what rises where a program gets worse, such as its share of wrong answers.
    """
    probe = program.twin()
    found = []
    for (one, first), (other, second) in combinations(enumerate(copies, start=1), 2):
        errors = []
        for alpha in ALPHAS:
            write(probe, interpolated(first, second, alpha))
            errors.append(error_of(probe))
        barrier = max(errors) - (errors[0] + errors[-1]) / 2
        found.append(Barrier(first=one, second=other, errors=errors, barrier=barrier))
    return found
