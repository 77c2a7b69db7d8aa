"""The registry of criteria. A criterion scores slices of a weight, or its single elements.

Higher means more important; what scores lowest is removed first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

SliceScore = Callable[[Tensor], Tensor]
"""[slices, elements of a slice] to [slices]."""
ElementScore = Callable[[Tensor], Tensor]
"""A weight to a score of the same shape, 0 or more."""
TicketScore = Callable[[Tensor, Tensor], Tensor]
"""Initial and final weights to a score of the same shape, of any sign."""
Draw = Callable[[int, torch.Generator], Tensor]
"""Number of scores and a generator to scores in [0, 1)."""


@dataclass(frozen=True)
class Criterion:
    """How importance is judged.

    Attributes:
        name: its name in recipes.
        slices: score of every output slice of a weight; None when it looks at no weight.
        elements: score of every weight; None when it looks at no weight.
        draw: scores without looking at weights; None when it looks at them.
        of_tickets: score of every weight from what it was before training and is after.
        of_layers: judges whole residual branches by running them (`engine.layers.scores`).
    """

    name: str
    slices: SliceScore | None = None
    elements: ElementScore | None = None
    draw: Draw | None = None
    of_tickets: TicketScore | None = None
    of_layers: bool = False

    def __post_init__(self) -> None:
        looks = self.slices is not None and self.elements is not None
        ways = (looks, self.draw is not None, self.of_tickets is not None, self.of_layers)
        if sum(ways) != 1:
            raise ValueError(
                f"criterion `{self.name}` must score weights, compare them with initial ones, draw "
                "without them, or judge layers"
            )


_CRITERIA: dict[str, Criterion] = {}


def register(criterion: Criterion) -> Criterion:
    """Add a criterion; a second one of the same name is a programming error."""
    if criterion.name in _CRITERIA:
        raise ValueError(f"criterion `{criterion.name}` is registered twice")
    _CRITERIA[criterion.name] = criterion
    return criterion


def criterion(name: str) -> Criterion:
    """The criterion of that name; recipes are validated, so a missing one is a KeyError."""
    return _CRITERIA[name]


def names() -> tuple[str, ...]:
    """All registered names, sorted."""
    return tuple(sorted(_CRITERIA))
