"""Reductions, softmax, pooling and resampling.

A dimension that is reduced disappears. Averages over channels change with their number and are
noted as mixing, and so do extrema. Sums over channels are exact when removed channels are zero
there, which an activation may spoil, so they are noted too. Places, orders and softmax over
channels would change meaning: those channels are frozen.
"""

from __future__ import annotations

from engine.coupling.labels import Dimension
from engine.coupling.rules.pointwise import pointwise
from engine.coupling.tracker import Tracker, rule
from engine.tape import Step, TensorValue, flatten


def _dims(step: Step, rank: int) -> list[int]:
    given = step.argument("dim")
    if given is None or given == []:
        return list(range(rank))
    listed = given if isinstance(given, list) else [given]
    return [int(dim) % max(rank, 1) for dim in listed]


def _reduce(tracker: Tracker, step: Step, *, mixing: bool) -> None:
    value = step.arguments[0]
    labels = tracker.labels(value)
    reduced = _dims(step, len(labels))
    for dim in reduced:
        if mixing:
            tracker.mixes(step, labels[dim])
        else:
            tracker.freeze(labels[dim], step, f"{step.kind} over channels would change meaning")
    keep = bool(step.argument("keepdim", False))
    result: list[Dimension] = [
        None if dim in reduced else own
        for dim, own in enumerate(labels)
        if keep or dim not in reduced
    ]
    for output in flatten(step.outputs):
        tracker.assign(
            output, result if len(output.shape) == len(result) else [None] * len(output.shape)
        )


@rule("mean", "sum", "var", "std", "var_mean", "std_mean", "norm", "linalg_vector_norm", "nansum")
def average(tracker: Tracker, step: Step) -> None:
    """Statistics over dimensions."""
    _reduce(tracker, step, mixing=True)


@rule("amax", "amin", "max", "min")
def extremum(tracker: Tracker, step: Step) -> None:
    """Largest and smallest values; the two-tensor forms are pointwise.

    The place of an extremum among channels is a number of a channel: nothing moves where the
    program reads it.
    """
    if isinstance(step.argument("other"), TensorValue):
        pointwise(tracker, step)
        return
    places = [value.number for value in flatten(step.outputs)][1:]
    _reduce(tracker, step, mixing=tracker.tape.read.isdisjoint(places))


@rule("argmax", "argmin", "prod", "logsumexp", "any", "all", "median")
def statistic(tracker: Tracker, step: Step) -> None:
    """What would change its meaning with the number of channels."""
    _reduce(tracker, step, mixing=False)


@rule("softmax", "log_softmax", "_softmax", "_log_softmax", "softmin", "cumsum", "cumprod")
def softmax(tracker: Tracker, step: Step) -> None:
    """Along one dimension all entries depend on each other."""
    value = step.arguments[0]
    labels = tracker.labels(value)
    dim = int(step.argument("dim")) % max(len(labels), 1)
    if labels:
        tracker.freeze(labels[dim], step, f"{step.kind} over channels would change meaning")
    tracker.assign(step.outputs[0], labels)


@rule(
    "topk", "sort", "argsort", "msort", "kthvalue", "mode", "cummax", "cummin", "logcumsumexp",
)  # fmt: skip
def order(tracker: Tracker, step: Step) -> None:
    """Places in an order along one dimension; the other dimensions pass, for values and indices."""
    labels = tracker.labels(step.arguments[0])
    if not labels:
        tracker.unknown(step)
        return
    last = 0 if step.kind == "aten::msort" else -1
    dim = int(step.argument("dim", last)) % len(labels)
    tracker.freeze(labels[dim], step, f"{step.kind} over channels would change meaning")
    labels[dim] = None
    for output in flatten(step.outputs):
        kept = labels if len(output.shape) == len(labels) else labels[:dim] + labels[dim + 1 :]
        tracker.assign(output, list(kept))


@rule(
    "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
    "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d",
    "max_pool2d_with_indices", "max_pool1d_with_indices", "max_pool3d_with_indices",
    "lp_pool2d", "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d",
    "upsample_bilinear2d", "upsample_bicubic2d", "upsample_linear1d", "upsample_trilinear3d",
    "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "_upsample_nearest_exact2d",
    "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d",
    "replication_pad2d", "replication_pad3d",
)  # fmt: skip
def spatial(tracker: Tracker, step: Step) -> None:
    """Channels pass; the trailing dimensions are resampled and stay."""
    value = step.arguments[0]
    labels = tracker.labels(value)
    digits = [character for character in step.kind if character.isdigit()]
    trailing = int(digits[0])
    for dim in range(len(labels) - trailing, len(labels)):
        tracker.freeze(labels[dim], step, "positions are resampled together")
        labels[dim] = None
    for output in flatten(step.outputs):
        tracker.assign(output, list(labels))
