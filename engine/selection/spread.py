"""How an amount is spread over groups of channels, where their sizes do not say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from secateur.recipe import Allocation
from torch import Tensor

from engine.coupling import Coupling
from engine.selection.channels import Originals
from engine.selection.schedule import final_count
from engine.selection.sensitivity import Curves, equal_drift
from engine.selection.units import channel_totals


@dataclass(frozen=True)
class Spread:
    """What the share of each group depends on.

    Attributes:
        coupling: components and groups before the stage.
        tensors: the program's tensors by name.
        originals: channels before the stage.
        curves: from a sensitivity scan; empty where none was asked for.
    """

    coupling: Coupling
    tensors: Mapping[str, Tensor]
    originals: Originals
    curves: Curves

    def totals(
        self, allocation: Allocation, scores: NDArray[np.float64]
    ) -> Mapping[str, int] | None:
        """Channels each group loses in all, by its key; None where their sizes say."""
        if allocation.distribution == "sensitivity":
            sizes = list(self.originals.by_group.values())
            return equal_drift(self.curves, sizes, final_count(allocation, self.originals.total))
        if allocation.by_layer:
            return channel_totals(allocation, self.coupling, self.tensors, scores)
        return None
