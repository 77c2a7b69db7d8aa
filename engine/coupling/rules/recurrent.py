r"""Recurrent layers: LSTM, GRU and the plain RNN, whole or as single cells, and packed sequences.

A step of a layer with hidden size H computes, for G gates (LSTM 4, GRU 3, RNN 1),

.. math:: a = W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh}, \qquad W_{ih} \in R^{GH \times I},

and from the blocks of a, entry by entry, the new state h_t (and c_t). Hidden unit j therefore
owns row gH + j of the weights and biases for every gate g, column j of W_hh, entry j of the
initial states, and what reads h_t: columns of the next layer's W_ih and of the layers after.
Nothing else sees h_j or c_j: whatever the unit holds when its weights are zero (half its last
state, for the gates give 1/2 and the new content is 0), it reaches others only through columns
that are zero too. So removal is exact for any initial state that can shrink along.

The states of all layers and directions lie in one tensor (layers * directions, batch, H), whose
last dimension makes position j of all of them one unit. An LSTM with a projection to P gives
h_t = W_hr (o * tanh(c_t)): h, the columns of W_hh and the outputs go by P, the gates and c by H.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from engine.coupling.labels import Dimension
from engine.coupling.tracker import Tracker, rule
from engine.tape import Step, TensorValue

_UNIT = "the gates and states of a hidden unit"
_STATE = "initial state of a recurrent layer"
_READS = "what a recurrent layer reads"
_TIME = "the steps of a sequence depend on each other"
_BATCH = "the batch of a recurrent layer and of its state"


@dataclass(frozen=True)
class _Weights:
    """Tensors of one layer in one direction: (GH, I), (GH, P or H), (GH) each, (P, H)."""

    w_ih: TensorValue
    w_hh: TensorValue
    biases: Sequence[TensorValue]
    w_hr: TensorValue | None = None


@rule("lstm", "gru", "rnn_tanh", "rnn_relu")
def recurrent(tracker: Tracker, step: Step) -> None:
    """All layers and directions, over padded (overload `input`) or packed (`data`) sequences."""
    value = step.arguments[0]
    labels = tracker.labels(value)
    packed = step.position("hx") == 2
    result: list[Dimension] = [None] * len(labels)
    batch = 0 if step.argument("batch_first") else 1
    if not packed:
        result[batch] = labels[batch]
    for dim, own in enumerate(labels[:-1]):
        if packed or dim != batch:
            tracker.freeze(own, step, _TIME)
    states = _states(step)
    for state in states:
        layers, samples = tracker.labels(state)[:2]
        tracker.freeze(layers, step, "layers and directions stay", report=False)
        tracker.unite(result[batch] if not packed else None, samples, step, _BATCH)
    hidden, cell = (tracker.labels(states[position])[-1] for position in (0, -1))
    directions = 2 if step.argument("bidirectional") else 1
    reads = labels[-1]
    for position, weights in enumerate(_layers(step, directions)):
        if position and position % directions == 0:
            reads = _side_by_side(hidden, directions)
        _layer(tracker, step, weights, reads, (hidden, cell))
    result[-1] = _side_by_side(hidden, directions)
    tracker.assign(step.outputs[0], result)
    samples = None if packed else result[batch]
    for output, unit in zip(step.outputs[1:], (hidden, cell), strict=False):
        tracker.assign(output, [None, samples, unit])


@rule("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
def one_step(tracker: Tracker, step: Step) -> None:
    """One step of one layer."""
    reads = tracker.labels(step.arguments[0])
    states = _states(step)
    for state in states:
        for own, sample in zip(reads[:-1], tracker.labels(state)[:-1], strict=True):
            tracker.unite(own, sample, step, _BATCH)
    hidden, inner = (tracker.labels(states[position])[-1] for position in (0, -1))
    biases = [step.argument(name) for name in ("b_ih", "b_hh")]
    weights = _Weights(
        w_ih=step.argument("w_ih"),
        w_hh=step.argument("w_hh"),
        biases=[bias for bias in biases if isinstance(bias, TensorValue)],
    )
    _layer(tracker, step, weights, reads[-1], (hidden, inner))
    for output, unit in zip(step.outputs, (hidden, inner), strict=False):
        tracker.assign(output, [*reads[:-1], unit])


def _states(step: Step) -> list[TensorValue]:
    """The initial h, and for an LSTM c."""
    given = step.argument("hx")
    return cast("list[TensorValue]", given if isinstance(given, list) else [given])


def _layers(step: Step, directions: int) -> Iterator[_Weights]:
    """The flat list of weights, layer by layer and direction by direction."""
    params = step.argument("params")
    each = len(params) // (int(step.argument("num_layers")) * directions)
    biases = 2 if step.argument("has_biases") else 0
    for start in range(0, len(params), each):
        w_ih, w_hh, *others = params[start : start + each]
        projected = len(others) > biases
        yield _Weights(w_ih, w_hh, others[:biases], others[-1] if projected else None)


def _side_by_side(labels: Dimension, directions: int) -> Dimension:
    return None if labels is None else np.tile(labels, directions).astype(np.int64)


def _layer(
    tracker: Tracker,
    step: Step,
    weights: _Weights,
    reads: Dimension,
    units: tuple[Dimension, Dimension],
) -> None:
    """Couple the weights of one layer in one direction with its input and its units (h, c)."""
    hidden, inner = units
    ih, hh = tracker.labels(weights.w_ih), tracker.labels(weights.w_hh)
    for own in (ih, hh):
        tracker.mark(own[0], "output")
        tracker.mark(own[1], "input")
    tracker.unite(reads, ih[1], step, _READS)
    tracker.unite(hidden, hh[1], step, _STATE)
    unit = hh[1]
    if weights.w_hr is None:
        tracker.unite(inner, unit, step, _STATE)
    else:
        out, through = tracker.labels(weights.w_hr)
        tracker.mark(out, "output")
        tracker.mark(through, "input")
        tracker.unite(hidden, out, step, _STATE)
        tracker.unite(inner, through, step, _STATE)
        unit = through
    rows = [ih[0], hh[0]]
    for bias in weights.biases:
        rows.append(tracker.labels(bias)[0])
        tracker.mark(rows[-1], "vector")
    for blocks in rows:
        _gates(tracker, step, blocks, unit)


def _gates(tracker: Tracker, step: Step, rows: Dimension, unit: Dimension) -> None:
    """Position j of every block of gates is unit j."""
    if rows is None or unit is None:
        tracker.unite(rows, unit, step, _UNIT)
        return
    for block in rows.reshape(-1, unit.size):
        tracker.unite(unit, block, step, _UNIT)


@rule("_pack_padded_sequence")
def pack(tracker: Tracker, step: Step) -> None:
    """Sequences of several lengths, laid one after the other: features pass."""
    labels = tracker.labels(step.arguments[0])
    for own in labels[:2]:
        tracker.freeze(own, step, _TIME)
    for own in tracker.labels(step.arguments[1]):
        tracker.freeze(own, step, "lengths of sequences")
    tracker.assign(step.outputs[0], [None, *labels[2:]])
    tracker.assign(step.outputs[1], [None])


@rule("_pad_packed_sequence")
def unpack(tracker: Tracker, step: Step) -> None:
    """The other way round; what is padded belongs to its feature."""
    labels = tracker.labels(step.arguments[0])
    tracker.freeze(labels[0], step, _TIME)
    tracker.assign(step.outputs[0], [None, None, *labels[1:]])
    tracker.assign(step.outputs[1], [None])
