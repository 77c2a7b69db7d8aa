"""What each side may try: as many candidates, and the one that does best on validation counts.

Torch-Pruning scores the slices that read a channel along with those that produce it, and divides
scores by their group's mean, both by default. Ours are asked for the like: by `slices`, and with
`normalize: mean` for all but `lamp`, which has a normalisation of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from secateur.recipe import SlicesScored

Scope = Literal["local", "global"]


@dataclass(frozen=True)
class Candidate:
    """One way to choose channels.

    Attributes:
        criterion: the name of the side's own criterion.
        scope: one amount for every layer, or one ranking over the network.
        slices: which of ours are scored; the peer has no such choice.
    """

    criterion: str
    scope: Scope
    slices: SlicesScored = "producing"

    @property
    def name(self) -> str:
        """As records and tables say it."""
        words = [self.criterion, self.scope]
        if self.slices != "producing":
            words.append(f"{self.slices} slices")
        return ", ".join(words)


PEER = (
    Candidate("l1", "local"),
    Candidate("l2", "local"),
    Candidate("l2", "global"),
    Candidate("fpgm", "local"),
    Candidate("lamp", "global"),
    Candidate("bn_scale", "global"),
    Candidate("taylor", "local"),
    Candidate("taylor", "global"),
    Candidate("hessian", "local"),
    Candidate("hessian", "global"),
    Candidate("activation", "local"),
    Candidate("random", "local"),
)
OURS = (
    Candidate("l2_norm", "global", "all"),
    Candidate("geometric_median", "local", "all"),
    Candidate("lamp", "global", "all"),
    Candidate("bn_scale", "global"),
    Candidate("wanda", "global", "all"),
    Candidate("wanda", "global", "reading"),
    Candidate("taylor", "local", "reading"),
    Candidate("taylor", "global", "reading"),
    Candidate("hessian", "local", "all"),
    Candidate("hessian", "global", "all"),
    Candidate("mean_activation", "local"),
    Candidate("random", "local"),
)
