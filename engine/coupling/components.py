"""Components: classes of labels that can go, numbered in order of first appearance.

What torch-free arithmetic this takes is done for all labels at once: networks have hundreds of
ranges, and a call to numpy costs more than a layer's worth of numbers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from engine.coupling.labels import Labels, Resolution
from engine.coupling.tracker import Tracker


def number_components(tracker: Tracker, resolution: Resolution) -> Labels:
    """For each label its component 0, 1, ... in order of first appearance; -1 when frozen.

    A component that fills a whole dimension by itself can never be removed.

    Returns:
        int64 [labels], the placeholder label 0 included.
    """
    component = resolution.component
    free = resolution.reason < 0
    free[component[0]] = False
    ranges = [item for item in tracker.space.ranges if item.size]
    if ranges:
        # Ranges lie side by side, from label 1 on.
        starts = np.array([item.start for item in ranges], np.int64)
        lowest = np.minimum.reduceat(component, starts)
        whole = lowest == np.maximum.reduceat(component, starts)
        held = np.array([bool(item.tensor) for item in ranges])
        free[lowest[whole & held]] = False
        # What only made tensors have in common is no channel of any weight.
        weighed = np.zeros(free.size, bool)
        weighed[component[1:][np.repeat(held, [item.size for item in ranges])]] = True
        free &= weighed
    if tracker.whole_heads:
        free &= _heads(tracker, resolution)
    raw = np.where(free[component], component, -1)
    names, first = np.unique(raw, return_index=True)
    order = np.argsort(first[names >= 0], kind="stable")
    number = np.full(resolution.reason.size + 1, -1, np.int64)
    number[names[names >= 0][order]] = np.arange(order.size)
    return number[raw]


def _heads(tracker: Tracker, resolution: Resolution) -> npt.NDArray[np.bool_]:
    heads = np.zeros(resolution.reason.size, bool)
    for labels in tracker.head_labels:
        heads[resolution.component[labels]] = True
    return heads
