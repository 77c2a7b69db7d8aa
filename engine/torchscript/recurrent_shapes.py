"""Shapes of recurrent layers, without unrolling them.

On the meta device torch decomposes an LSTM in Python, gate by gate and step by step: thousands of
calls for one layer. All that counts are the matrix products, and those of all steps together are
the same as one product of all samples and steps; so one product is run for each weight matrix.
It checks the sizes, and whoever counts floating-point operations counts the true number.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from engine.torchscript.instructions import Operator

_GATES = {"aten::lstm": 4, "aten::gru": 3, "aten::rnn_tanh": 1, "aten::rnn_relu": 1}


def is_recurrent(operator: Operator) -> bool:
    """Whether `recurrent_on_meta` knows the operator."""
    return operator.name in _GATES


def recurrent_on_meta(operator: Operator, arguments: list[Any]) -> list[Tensor]:
    """Output and final states.

    Raises:
        RuntimeError: the sizes do not fit.
    """
    given = dict(zip(operator.arguments, arguments, strict=True))
    states: list[Tensor] = given["hx"] if operator.name == "aten::lstm" else [given["hx"]]
    value: Tensor = arguments[0]
    packed = "batch_sizes" in given
    directions = 2 if given["bidirectional"] else 1
    count = int(given["num_layers"]) * directions
    width, cells = states[0].shape[-1], states[-1].shape[-1]
    samples = None if packed else value.shape[0 if given["batch_first"] else 1]
    for state in states:
        _require(state.shape[0] == count, "states of all layers and directions")
        _require(samples in {None, state.shape[1]}, "a state for each sample")
    rows = value.reshape(-1, value.shape[-1])
    each = len(given["params"]) // count
    for start in range(0, len(given["params"]), each):
        if start and start // each % directions == 0:
            rows = rows.new_empty(rows.shape[0], directions * width)
        weights = given["params"][start : start + each]
        _layer(rows, weights, _GATES[operator.name] * cells, given["has_biases"], (width, cells))
    shape = (*value.shape[:-1], directions * width)
    return [value.new_empty(shape), *(torch.empty_like(state) for state in states)]


def _layer(
    rows: Tensor, weights: list[Tensor], gates: int, biases: bool, sizes: tuple[int, int]
) -> None:
    """The products of one layer in one direction, for all samples and steps."""
    w_ih, w_hh, *others = weights
    width, cells = sizes
    _require(rows.mm(w_ih.t()).shape[1] == gates, "a row of the input weights for each gate")
    hidden = rows.new_empty(rows.shape[0], width)
    _require(hidden.mm(w_hh.t()).shape[1] == gates, "a row of the hidden weights for each gate")
    for bias in others[: 2 if biases else 0]:
        _require(bias.shape == (gates,), "a bias for each gate")
    projections = others[2 if biases else 0 :]
    # torch tells an LSTM with a projection by its states, and then reads one more weight.
    _require(bool(projections) == (width != cells), "a projection where the states differ in width")
    for projection in projections:
        inner = rows.new_empty(rows.shape[0], cells)
        _require(inner.mm(projection.t()).shape[1] == width, "a projection to the hidden state")


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise RuntimeError(f"a recurrent layer needs {what}")
