"""The shape of a convolution's result, without torch's own derivation, which is slow in Python.

Along each spatial dimension, with input size s, kernel k, stride t, padding p, dilation d and
output padding o (Dumoulin and Visin 2016, "A guide to convolution arithmetic for deep learning"):

    convolution             floor((s + 2p - d(k - 1) - 1) / t) + 1
    transposed convolution  (s - 1)t - 2p + d(k - 1) + o + 1
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from engine.torchscript.instructions import Operator

_DIRECT = frozenset({"aten::conv1d", "aten::conv2d", "aten::conv3d"})
_GENERAL = frozenset({"aten::_convolution", "aten::convolution"})


def convolution_on_meta(operator: Operator, arguments: list[Any]) -> Tensor | None:
    """The result on the meta device.

    None where the case is not the plain one (no batch, padding by name, another memory format,
    operands that do not fit): torch judges those.
    """
    if operator.name not in _DIRECT and operator.name not in _GENERAL:
        return None
    given = dict(zip(operator.arguments, arguments, strict=True))
    inputs, weight, bias = given["input"], given["weight"], given["bias"]
    spatial = weight.dim() - 2
    transposed = given.get("transposed", False)
    groups = given["groups"]
    outputs = weight.shape[1] * groups if transposed else weight.shape[0]
    reads = weight.shape[0] if transposed else weight.shape[1] * groups
    plain = (
        inputs.dim() == weight.dim()
        and inputs.dtype == weight.dtype
        and inputs.shape[1] == reads
        and outputs % groups == reads % groups == 0
        and (bias is None or (bias.shape == (outputs,) and bias.dtype == weight.dtype))
        and inputs.is_contiguous()
        and weight.is_contiguous()
        and isinstance(given["padding"], list)
    )
    if not plain:
        return None
    stride, padding, dilation = (
        _each(given[name], spatial) for name in ("stride", "padding", "dilation")
    )
    extra = _each(given["output_padding"], spatial) if transposed else [0] * spatial
    sizes = [
        (s - 1) * t - 2 * p + d * (k - 1) + o + 1
        if transposed
        else (s + 2 * p - d * (k - 1) - 1) // t + 1
        for s, k, t, p, d, o in zip(
            inputs.shape[2:], weight.shape[2:], stride, padding, dilation, extra, strict=True
        )
    ]
    if min(sizes, default=1) < 1:
        return None
    return torch.empty((inputs.shape[0], outputs, *sizes), dtype=inputs.dtype, device="meta")


def _each(value: list[int], spatial: int) -> list[int]:
    return value * spatial if len(value) == 1 else value
