r"""Convolutions.

A convolution with weight :math:`W \in R^{O \times I/g \times k}` and g groups reads input channel
:math:`(a, i)` (group a, position i) through :math:`W_{o,i}` for every o of group a.

* g = 1: input channel i corresponds to W[:, i], output channel o to W[o].
* depthwise, g = I and W has one input slice: output channels i*m .. i*m+m-1 read input channel i
  alone, so they live and die with it, and g shrinks with them.
* otherwise: g stays, so every group keeps the same positions: position i is one label for all
  groups, on the input and on the output.

Transposed convolutions carry W as (I, O/g, k). Kernel positions are never removed.
"""

from __future__ import annotations

import numpy as np

from engine.coupling.labels import Dimension, Labels
from engine.coupling.tracker import Tracker, rule
from engine.tape import Step, TensorValue

_GROUPS = "every group keeps the same positions"


@rule(
    "conv1d", "conv2d", "conv3d", "_convolution", "convolution", "_convolution_mode",
    "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
)  # fmt: skip
def convolution(tracker: Tracker, step: Step) -> None:
    """Couple the channels of input, weight, bias and output."""
    value, weight, bias = step.arguments[0], step.arguments[1], step.argument("bias")
    groups = int(step.argument("groups", 1))
    transposed = "transpose" in step.kind or bool(step.argument("transposed", False))
    labels = tracker.labels(value)
    channel = 1 if len(value.shape) == len(weight.shape) else 0
    result: list[Dimension] = [None] * len(labels)
    for dim in range(channel + 1, len(labels)):
        if _pointwise_along(step, dim - channel - 1):
            result[dim] = labels[dim]
        else:
            tracker.freeze(labels[dim], step, "a convolution slides over this dimension")
    for own in labels[:channel]:
        tracker.freeze(own, step, "batch of a convolution")
    weights = tracker.labels(weight)
    for dim in range(2, len(weights)):
        tracker.freeze(weights[dim], step, "kernel positions stay", report=False)
    arrange = _transposed if transposed else _direct
    out = arrange(tracker, step, labels[channel], groups)
    result[channel] = out
    if isinstance(bias, TensorValue):
        tracker.unite(tracker.labels(bias)[0], out, step, "bias of the channel")
        tracker.mark(tracker.labels(bias)[0], "vector")
    tracker.assign(step.outputs[0], result)


def _pointwise_along(step: Step, position: int) -> bool:
    """A kernel of one element, moved one by one, treats every position alone."""
    if step.arguments[1].shape[2 + position] != 1:
        return False
    stride, padding = step.argument("stride"), step.argument("padding", 0)
    fixed = {"stride": stride, "padding": padding}
    at = {
        name: value[min(position, len(value) - 1)] if isinstance(value, list) else value
        for name, value in fixed.items()
    }
    return at["stride"] == 1 and (at["padding"] == 0 or isinstance(at["padding"], str))


def _direct(tracker: Tracker, step: Step, inputs: Dimension, groups: int) -> Dimension:
    weight = step.arguments[1]
    outputs, reads = tracker.labels(weight)[:2]
    tracker.mark(outputs, "output")
    if groups == 1:
        tracker.mark(reads, "input")
        tracker.unite(inputs, reads, step, "input channels of the convolution")
        return outputs
    if weight.shape[1] == 1:
        return _depthwise(tracker, step, inputs, outputs, groups)
    tracker.mark(reads, "input")
    grouped = _by_group(tracker, inputs, groups, step)
    tracker.unite(grouped, reads, step, "input channels of the grouped convolution")
    _by_group(tracker, outputs, groups, step)
    return outputs


def _transposed(tracker: Tracker, step: Step, inputs: Dimension, groups: int) -> Dimension:
    weight = step.arguments[1]
    reads, outputs = tracker.labels(weight)[:2]
    tracker.mark(outputs, "output")
    if groups == 1:
        tracker.mark(reads, "input")
        tracker.unite(inputs, reads, step, "input channels of the transposed convolution")
        return outputs
    if weight.shape[0] == groups and weight.shape[1] == 1:
        tracker.mark(reads, "output")
        return _depthwise(tracker, step, inputs, reads, groups)
    tracker.mark(reads, "input")
    tracker.unite(inputs, reads, step, "input channels of the grouped convolution")
    _by_group(tracker, reads, groups, step)
    return None if outputs is None else np.tile(outputs, groups).astype(np.int64)


def _depthwise(
    tracker: Tracker, step: Step, inputs: Dimension, outputs: Dimension, groups: int
) -> Dimension:
    """Every group has one input channel."""
    if outputs is None:
        tracker.freeze(inputs, step, "a depthwise convolution of channels of fixed number")
        return None
    multiplier = outputs.size // groups
    if inputs is None:
        tracker.freeze(outputs, step, "a depthwise convolution of channels of fixed number")
        return outputs
    tracker.unite(np.repeat(inputs, multiplier), outputs, step, "depthwise channels")
    return outputs


def _by_group(tracker: Tracker, labels: Dimension, groups: int, step: Step) -> Dimension:
    """Labels of the first group, after uniting the same position of all groups."""
    if labels is None:
        return None
    table = labels.reshape(groups, -1)
    first: Labels = table[0]
    if groups > 1:
        tracker.unite(np.tile(first, groups - 1), table[1:].ravel(), step, _GROUPS)
    return first
