"""Recurrent operators take every size from their weights; one choice they take from sizes.

torch recognises an LSTM with a projection by h and c having different widths, and cuDNN wants h to
be the narrower one. A removal that leaves c no wider than h would be read as an LSTM without one.
"""

from __future__ import annotations

import numpy as np

from engine.compaction.conflict import CompactionConflict
from engine.compaction.repairs import Repair, repair


@repair("lstm")
def projection(item: Repair) -> None:
    """The projection stays narrower than the cell."""
    hidden, inner = item.step.outputs[1], item.step.outputs[2]
    h, c = (shape[-1] for shape in item.expected[1:3])
    if hidden.shape[-1] == inner.shape[-1] or h < c:
        return
    own = item.labels(inner, len(inner.shape) - 1)
    raise CompactionConflict(
        f"the projection of the LSTM at {item.step.layer()} would have {h} units and its cells {c}",
        where=item.step.layer(),
        components=np.empty(0, np.int64) if own is None else np.unique(own[own >= 0]),
    )
