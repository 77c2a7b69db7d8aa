"""Hand-made couplings for tests of scores and selection."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np


@dataclass
class MadeSlices:
    tensor: str
    dim: int
    role: str
    component: np.ndarray


@dataclass
class MadeGroup:
    name: str
    components: np.ndarray


@dataclass
class MadeCoupling:
    component_count: int
    slices: list[MadeSlices]
    groups: list[MadeGroup]
    frozen: list[object] = field(default_factory=list)
    mixed_by: list[str] = field(default_factory=list)


def coupling_of(sizes: list[int]) -> MadeCoupling:
    """Groups of these sizes, each produced by one two-dimensional weight `g<n>.weight`."""
    starts = np.cumsum([0, *sizes])
    ids = [np.arange(start, stop) for start, stop in pairwise(starts)]
    return MadeCoupling(
        component_count=int(starts[-1]),
        slices=[
            MadeSlices(f"g{n}.weight", 0, "output", components) for n, components in enumerate(ids)
        ],
        groups=[MadeGroup(f"g{n}", components) for n, components in enumerate(ids)],
    )
