r"""Scaled dot-product attention, :math:`softmax(Q K^T s) V`.

The last dimensions of Q and K are summed together; the last dimension of V becomes the output's;
leading dimensions (batch, heads) correspond. Positions (sequence) stay. With grouped queries each
head of K and V serves several of Q (`enable_gqa`), and they go together. The default scale
:math:`s = 1/\sqrt{E}` depends on the width of Q; compaction writes the original into the program.
"""

from __future__ import annotations

import numpy as np

from engine.coupling.heads import note_heads
from engine.coupling.labels import Dimension
from engine.coupling.tracker import Tracker, rule
from engine.tape import Step, TensorValue


@rule("scaled_dot_product_attention")
def attention(tracker: Tracker, step: Step) -> None:
    """Couple query, key and value."""
    query, key, value = step.arguments[:3]
    mask = step.argument("attn_mask")
    q, k, v = tracker.labels(query), tracker.labels(key), tracker.labels(value)
    tracker.unite(q[-1], k[-1], step, "query and key are summed together")
    for labels in (q[-2], k[-2], v[-2]):
        tracker.freeze(labels, step, "positions attend to each other")
    lead: list[Dimension] = []
    for dim in range(len(q) - 2):
        for labels in (q[dim], k[dim], v[dim]):
            note_heads(tracker, labels)
        sizes = {query.shape[dim], key.shape[dim], value.shape[dim]}
        if step.argument("enable_gqa") is True and key.shape[dim] == value.shape[dim]:
            repeats = query.shape[dim] // key.shape[dim]
            k[dim], v[dim] = (
                None if labels is None else np.repeat(labels, repeats)
                for labels in (k[dim], v[dim])
            )
            sizes = {query.shape[dim]}
        if len(sizes) == 1:
            tracker.unite(q[dim], k[dim], step, "heads of query and key")
            tracker.unite(q[dim], v[dim], step, "heads of query and value")
        else:
            for labels in (q[dim], k[dim], v[dim]):
                tracker.freeze(labels, step, "heads are shared between queries")
        lead.append(q[dim])
    if isinstance(mask, TensorValue):
        for labels in tracker.labels(mask):
            tracker.freeze(labels, step, "attention mask")
        for dim, labels in enumerate(lead):
            offset = dim - (len(q) - len(mask.shape))
            if offset >= 0 and mask.shape[offset] > 1:
                tracker.freeze(labels, step, "the attention mask has a fixed number of heads")
    tracker.assign(step.outputs[0], [*lead, None, v[-1]])
