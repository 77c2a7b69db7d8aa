"""What cannot be removed, counted once under the layer whose outputs it is, with the reason."""

from __future__ import annotations

import numpy as np
from secateur.report import Frozen

from engine.coupling.labels import Resolution
from engine.coupling.tracker import Tracker


def frozen_channels(tracker: Tracker, resolution: Resolution) -> list[Frozen]:
    """Frozen components by layer, operator and reason.

    A component that several layers share counts for one whose outputs it is, if there is one,
    and for the earliest of those.
    """
    ranges = [item for item in tracker.space.ranges if item.size]
    if not ranges:
        return []
    outputs_first = sorted(
        range(len(ranges)),
        key=lambda index: (
            not ranges[index].tensor,
            tracker.roles.get(ranges[index].start) != "output",
        ),
    )
    rank = np.empty(len(ranges), np.int64)
    rank[outputs_first] = np.arange(len(ranges))
    holders = np.repeat(rank, [item.size for item in ranges])
    components = resolution.component[1:]
    stopped = resolution.reason[components] >= 0
    holder = np.full(resolution.reason.size, len(ranges), np.int64)
    np.minimum.at(holder, components[stopped], holders[stopped])
    found = np.flatnonzero(holder < len(ranges))
    pairs = np.stack([holder[found], resolution.reason[found]], axis=1)
    counts: dict[tuple[str, str, str], int] = {}
    different, numbers = np.unique(pairs, axis=0, return_counts=True)
    for (place, index), number in zip(different.tolist(), numbers.tolist(), strict=True):
        item = ranges[outputs_first[place]]
        reason = resolution.reasons[index]
        if item.tensor and reason.report:
            layer = item.tensor.rpartition(".")[0] or item.tensor
            key = (layer, reason.operator, reason.text)
            counts[key] = counts.get(key, 0) + number
    return [
        Frozen(layer=layer, op=operator, reason=text, channels=channels)
        for (layer, operator, text), channels in counts.items()
    ]
