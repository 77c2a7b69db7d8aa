"""The registry of criteria: how importance is judged.

Higher means more important; what scores lowest is removed first. A criterion says in one of six
ways what it looks at: the weights as they are (`slices`), a value it works out for every weight
(`saliency`), activations (`activations`), nothing (`draw`), initial beside final weights
(`of_tickets`), or whole residual branches (`of_layers`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.evidence.samples import Evidence
from engine.tape import Tape
from engine.torchscript.program import Program

SliceScore = Callable[[Tensor], Tensor]
"""[slices, elements of a slice] to [slices]."""
ElementScore = Callable[[Tensor], Tensor]
"""A weight to a score of the same shape, 0 or more."""
TicketScore = Callable[[Tensor, Tensor], Tensor]
"""Initial and final weights to a score of the same shape, of any sign."""
Draw = Callable[[int, torch.Generator], Tensor]
"""Number of scores and a generator to scores in [0, 1)."""
Maps = dict[str, Tensor]
"""A value for every weight: tensors by parameter name, of the parameter's shape."""
Saliency = Callable[[Program, Evidence], Iterator[tuple[float, Maps]]]
"""Maps and the share that each has in the score; the shares add up to 1."""


@dataclass(frozen=True)
class Criterion:
    """How importance is judged.

    Attributes:
        name: its name in recipes.
        slices: score of every slice of a weight.
        elements: score of every single weight, for criteria of weights as they are.
        tensors: names of the tensors whose slices are scored; None for the weights of two or more
            dimensions that produce a channel.
        saliency: a value for every weight; those of a slice are summed up.
        squared: the values of all slices of a component are summed with their signs, and the sum
            of each map is squared, instead of the slices being aggregated.
        activations: a statistic of activations, whose mean is the score.
        draw: scores without looking at anything.
        of_tickets: score of every weight from what it was before training and is after.
        of_layers: judges whole residual branches by running them (`engine.layers.scores`).
        lacking: what it means when a channel has no score; such channels stay, with this reason.
        remedy: what to do when no channel has one.
    """

    name: str
    slices: SliceScore | None = None
    elements: ElementScore | None = None
    tensors: Callable[[Tape], set[str]] | None = None
    saliency: Saliency | None = None
    squared: bool = False
    activations: Callable[[Tensor], Tensor] | None = None
    draw: Draw | None = None
    of_tickets: TicketScore | None = None
    of_layers: bool = False
    lacking: str = ""
    remedy: str = "use a criterion of weights, such as `l1_norm`"

    def __post_init__(self) -> None:
        looks = (self.slices, self.saliency, self.activations, self.draw, self.of_tickets)
        ways = sum(way is not None for way in looks) + self.of_layers
        if ways != 1 or (self.elements is not None and self.slices is None):
            raise ValueError(
                f"criterion `{self.name}` must score slices, give a saliency, look at "
                "activations, draw, compare weights with initial ones, or judge layers, and do one "
                "of these"
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
