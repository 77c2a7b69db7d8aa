"""Who wins: best metric after recovery, then lowest loss, then first in order."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from secateur.report import Contestant


def winner(contestants: Sequence[Contestant], *, higher_is_better: bool = True) -> str | None:
    """The name of the best; None where none could compete.

    A metric or a loss that is no finite number ranks below all others.
    """
    sign = -1 if higher_is_better else 1
    ranked = [
        (
            inf if (value := _metric(one)) is None else sign * value,
            inf if one.loss is None else one.loss,
            place,
            one.criterion,
        )
        for place, one in enumerate(contestants)
        if one.reason is None
    ]
    return min(ranked)[-1] if ranked else None


def _metric(one: Contestant) -> float | None:
    # Outcomes in checkpoints of older versions know no other metric than accuracy.
    if one.metric is None and one.accuracy is not None:
        return one.accuracy.top1
    return one.metric
