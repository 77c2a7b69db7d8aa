r"""Similarities and distances between vectors of channels.

The cosine :math:`\sum_c x_c y_c / (\lVert x\rVert \lVert y\rVert)` and :math:`\lVert x - y\rVert_p`
sum over channels: the channels of both correspond, and removing one removes its term. The term is
zero where both activations are, which nothing promises, so all of them are noted as mixing.
"""

from __future__ import annotations

from engine.coupling.rules.pointwise import broadcast
from engine.coupling.tracker import Tracker, rule
from engine.tape import Step


@rule("cosine_similarity", "pairwise_distance")
def pairwise(tracker: Tracker, step: Step) -> None:
    """Two tensors broadcast together; one dimension disappears."""
    left, right, output = step.arguments[0], step.arguments[1], step.outputs[0]
    rank = max(len(left.shape), len(right.shape))
    dim = int(step.argument("dim", -1)) % max(rank, 1)
    # The shape before the sum.
    shape = [1] * rank
    for value in (left, right):
        for position, size in enumerate(value.shape, rank - len(value.shape)):
            shape[position] = max(shape[position], size)
    labels = broadcast(tracker, step, [left, right], tuple(shape))
    tracker.mixes(step, labels[dim])
    keep = len(output.shape) == rank
    tracker.assign(
        output,
        [
            None if position == dim else own
            for position, own in enumerate(labels)
            if keep or position != dim
        ],
    )


@rule("cdist", "_euclidean_dist")
def cdist(tracker: Tracker, step: Step) -> None:
    """Every row of one matrix against every row of another, batch dimensions broadcast."""
    left, right, output = step.arguments[0], step.arguments[1], step.outputs[0]
    a, b = tracker.labels(left), tracker.labels(right)
    tracker.unite(a[-1], b[-1], step, "compared index by index")
    tracker.mixes(step, a[-1])
    for own in [*a[:-2], *b[:-2]]:
        tracker.freeze(own, step, "batch dimension of a distance")
    tracker.assign(output, [*[None] * (len(output.shape) - 2), a[-2], b[-2]])
