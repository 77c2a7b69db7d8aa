"""Random scores: the baseline every criterion must beat.

Each unit (a coupled channel, or a single weight) gets an independent uniform score, s ~ U[0, 1),
so every subset of the wanted size is equally likely. A coupled channel draws once however many
slices it spans: a sum of several draws would favour channels with many slices. Draws are seeded
by the name of the group or tensor, so they do not depend on the order of layers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engine.scores.registry import Criterion, register


def _uniform(count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator, dtype=torch.float64)


RANDOM = register(Criterion("random", draw=_uniform))
