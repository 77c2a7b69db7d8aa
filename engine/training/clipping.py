"""Gradient clipping: no step is larger than the recipe allows.

With g the gradient of all trained parameters together, as one vector:

    by value   g_i <- min(max(g_i, -c), c)
    by norm    g <- g c / ||g||_2   where ||g||_2 > c       (Pascanu, Mikolov & Bengio 2013,
               "On the difficulty of training recurrent neural networks", ICML, algorithm 1)

The norm keeps the direction, the value does not. Where both are asked for, the value goes first:
the norm is then at most c when the optimiser sees it. Both come after the penalty and after the
masks, so what a masked weight would have got takes nothing from the others.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def clip_gradients(
    parameters: Iterable[Tensor], *, norm: float | None, value: float | None
) -> Tensor | None:
    """Clip the gradients in place; parameters without one are left out.

    A gradient that is not finite stays so: the next loss tells.

    Returns:
        The L2 norm of all gradients before it was limited, float64 [] on their device; None where
        no limit of the norm is asked for.

    Args:
        parameters: of any float types, on one device.
        norm: largest L2 norm of all gradients together.
        value: largest magnitude of an element.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return None
    if value is not None:
        for gradient in gradients:
            gradient.clamp_(-value, value)
    if norm is None:
        return None
    found = total_norm(gradients)
    # A factor of 1 changes no bit, so nothing waits for the device to compare.
    factor = (norm / found).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factor)
    return found


def total_norm(gradients: Iterable[Tensor]) -> Tensor:
    """L2 norm of all elements together, float64 [] on the device of the gradients."""
    # Squares leave the range of half types, and sums of millions the precision of float32.
    norms = [torch.linalg.vector_norm(one, dtype=torch.float64) for one in gradients]
    total: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return total
