"""Who wins: highest accuracy after recovery, then lowest loss, then first in order."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from secateur.report import Contestant


def winner(contestants: Sequence[Contestant]) -> str | None:
    """The name of the best; None where none could compete.

    A loss that is no finite number ranks below all others.
    """
    ranked = [
        (-one.accuracy.top1, inf if one.loss is None else one.loss, place, one.criterion)
        for place, one in enumerate(contestants)
        if one.accuracy is not None
    ]
    return min(ranked)[-1] if ranked else None
