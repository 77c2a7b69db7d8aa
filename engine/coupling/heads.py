r"""Which dimensions of a run are attention heads.

An attention layer cuts C channels into H heads of D values, C -> (H, D), and multiplies two
activations with the heads as batch dimension: queries by keys, then weights by values. Where C is
cut, nothing yet tells H from D. So the labels are carried twice: first with a *probe* laid on
every dimension that a cut makes beside the labelled one. A probe that arrives at a batch dimension
of a product of two activations marks its dimension as heads.

Channels are then removed within heads, the same positions of each (H is never chosen to carry the
labels), and heads as a whole (only H is). Queries that share keys and values (Ainslie et al. 2023,
grouped-query attention) meet in the product, so their heads stand and fall together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from engine.coupling.labels import Dimension, Labels

if TYPE_CHECKING:
    from engine.coupling.tracker import Tracker

HeadDimensions = dict[int, int]
"""Number of a tensor that a cut made to its dimension of heads."""


@dataclass
class Cuts:
    """Reshapes that spread one labelled dimension over several.

    Attributes:
        carried: tensor number, the dimension that carries the labels from there on, and them.
        probes: tensor number, another dimension of the cut, and the probe laid on it.
    """

    carried: list[tuple[int, int, Labels]] = field(default_factory=list)
    probes: list[tuple[int, int, Labels]] = field(default_factory=list)


def head_dimensions(tracker: Tracker) -> HeadDimensions:
    """What the probes of a finished run show."""
    cuts = tracker.cuts
    if cuts is None or not cuts.carried:
        return {}
    component = tracker.space.resolve().component
    batch = np.zeros(component.max() + 1, bool)
    for labels in tracker.head_labels:
        batch[component[labels]] = True
    batch[component[0]] = False
    return {
        number: dim
        for number, dim, labels in [*cuts.carried, *cuts.probes]
        if batch[component[labels[labels > 0]]].any()
    }


def note_heads(tracker: Tracker, labels: Dimension) -> None:
    """These labels lie along a batch dimension of a product of two activations."""
    if labels is not None:
        tracker.head_labels.append(labels[labels > 0])
