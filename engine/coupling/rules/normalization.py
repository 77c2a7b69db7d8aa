r"""Normalisation.

BatchNorm and InstanceNorm act on each channel alone: exact. LayerNorm, GroupNorm and RMSNorm take
mean and variance over channels, :math:`\mu = \frac1n \sum_c x_c`; after removing channels n and
the sum change, so the compact model drifts from the masked-dense one. They are allowed, noted as
mixing, and their drift is measured. GroupNorm keeps its number of groups: every group keeps the
same positions.

A weight stored as direction and length, :math:`w = g\,v/\lVert v\rVert` (Salimans and Kingma 2016),
holds a norm of weights: with input channels removed from v it is that of the rest, so it is noted
as mixing as well.
"""

from __future__ import annotations

from engine.coupling.labels import Dimension
from engine.coupling.tracker import Tracker, rule
from engine.tape import Step, TensorValue


def _per_channel(tracker: Tracker, step: Step, names: tuple[str, ...], channel: Dimension) -> None:
    for name in names:
        value = step.argument(name)
        if isinstance(value, TensorValue):
            own = tracker.labels(value)[0]
            tracker.mark(own, "vector")
            tracker.unite(channel, own, step, "one value per channel")


@rule("batch_norm", "native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")
def batch_norm(tracker: Tracker, step: Step) -> None:
    """Scale, shift and statistics per channel.

    Statistics of the batch are taken over all other dimensions, which they mix.
    """
    value = step.arguments[0]
    labels = tracker.merged_labels(value)
    labels[1] = tracker.single(value, 1)
    running = isinstance(step.argument("running_mean"), TensorValue)
    if step.argument("training") is True or not running:
        for dim, own in enumerate(labels):
            if dim != 1:
                tracker.mixes(step, own)
    _per_channel(tracker, step, ("weight", "bias", "running_mean", "running_var"), labels[1])
    tracker.assign(step.outputs[0], labels)
    for extra in step.outputs[1:]:
        if isinstance(extra, TensorValue):
            tracker.assign(extra, [None] * len(extra.shape))


@rule("instance_norm")
def instance_norm(tracker: Tracker, step: Step) -> None:
    """Statistics per channel over the other dimensions."""
    labels = tracker.labels(step.arguments[0])
    _per_channel(tracker, step, ("weight", "bias", "running_mean", "running_var"), labels[1])
    for dim in range(2, len(labels)):
        tracker.mixes(step, labels[dim])
    tracker.assign(step.outputs[0], labels)


@rule("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm")
def layer_norm(tracker: Tracker, step: Step) -> None:
    """Statistics over the last dimensions."""
    value = step.arguments[0]
    labels = tracker.labels(value)
    normalized = len(step.argument("normalized_shape"))
    first = len(labels) - normalized
    for name in ("weight", "bias"):
        scale = step.argument(name)
        if isinstance(scale, TensorValue):
            for offset, own in enumerate(tracker.labels(scale)):
                tracker.mark(own, "vector")
                tracker.unite(labels[first + offset], own, step, "one value per channel")
    for dim in range(first, len(labels)):
        tracker.mixes(step, labels[dim])
    tracker.assign(step.outputs[0], labels)
    for extra in step.outputs[1:]:
        if isinstance(extra, TensorValue):
            tracker.assign(extra, [None] * len(extra.shape))


@rule("group_norm")
def group_norm(tracker: Tracker, step: Step) -> None:
    """Statistics over the channels of each group."""
    value, groups = step.arguments[0], int(step.arguments[1])
    labels = tracker.labels(value)
    channel = labels[1]
    _per_channel(tracker, step, ("weight", "bias"), channel)
    if channel is not None:
        table = channel.reshape(groups, -1)
        for group in table[1:]:
            tracker.unite(table[0], group, step, "every group keeps the same positions")
        if table.shape[1] == 1:
            tracker.freeze(channel, step, "every group of the norm has one channel")
        tracker.mixes(step, channel)
    for dim in range(2, len(labels)):
        tracker.mixes(step, labels[dim])
    tracker.assign(step.outputs[0], labels)


@rule("_weight_norm", "_weight_norm_interface")
def weight_norm(tracker: Tracker, step: Step) -> None:
    """`v` scaled to length `g` along every dimension but one; along all of them where dim is -1."""
    direction, length, dim = step.arguments[0], step.arguments[1], int(step.argument("dim", 0))
    labels, lengths = tracker.labels(direction), tracker.labels(length)
    for position, own in enumerate(labels):
        if position == dim:
            tracker.unite(own, lengths[position], step, "one length per channel")
            tracker.mark(lengths[position], "vector")
        else:
            tracker.mixes(step, own)
    for output in step.outputs:
        if isinstance(output, TensorValue):
            tracker.assign(output, labels if output.shape == direction.shape else lengths)
