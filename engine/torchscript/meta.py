"""Running operators for their shapes only, on the meta device.

Torch computes the shape of many operators by decomposing them in Python, which costs more than
the arithmetic of a small layer. Four classes need no such thing: normalisations and their like
give what they take, a pointwise operator gives the broadcast shape, with the type that one
element of each operand gives, a convolution and a recurrent layer what their definitions say.
"""

from __future__ import annotations

from typing import Any

import torch

from engine.torchscript.convolution_shapes import convolution_on_meta
from engine.torchscript.instructions import Instruction, Operator
from engine.torchscript.interpreter import run_operator
from engine.torchscript.recurrent_shapes import is_recurrent, recurrent_on_meta

_SAME_AS_FIRST = frozenset(
    f"aten::{name}"
    for name in (
        "batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "softmax", "dropout",
        "feature_dropout", "alpha_dropout",
    )
)  # fmt: skip

_ACTIVATIONS = frozenset(
    f"aten::{name}"
    for name in ("hardswish", "hardsigmoid", "hardtanh", "relu6", "mish", "selu", "elu", "celu",
                 "gelu", "silu", "softplus", "leaky_relu", "hardshrink", "softshrink")
)  # fmt: skip
"""Functions of one tensor, of which torch tags some pointwise and some not."""

_WINDOWS = {f"aten::adaptive_avg_pool{dims}d": dims for dims in (1, 2, 3)}


def run_on_meta(
    instruction: Instruction, arguments: list[Any], *, products_by_torch: bool = False
) -> Any:
    """The outputs of an operator, with shapes and types but without values.

    Args:
        products_by_torch: run convolutions by torch's own derivation, where `FlopCounterMode`
            sees them.
    """
    operator = instruction.operator
    assert operator is not None  # noqa: S101  callers pass operator instructions only
    first = arguments[0] if arguments else None
    if isinstance(first, torch.Tensor) and first.device.type == "meta":
        if operator.name in _SAME_AS_FIRST and _keeps_type(operator.arguments, arguments):
            return _like(first, first.dtype)
        if first.is_floating_point() and operator.name.removesuffix("_") in _ACTIVATIONS:
            return first if operator.name.endswith("_") else _like(first, first.dtype)
        if operator.pointwise and len(instruction.outputs) == 1:
            return _pointwise(instruction, arguments, first)
        shaped = None if products_by_torch else convolution_on_meta(operator, arguments)
        shaped = _averaged(operator, arguments, first) if shaped is None else shaped
        if shaped is not None:
            return shaped
        if is_recurrent(operator):
            return recurrent_on_meta(operator, arguments)
    if "device" in operator.arguments and not _scalar(operator.name, arguments):
        position = operator.arguments.index("device")
        arguments = [*arguments[:position], torch.device("meta"), *arguments[position + 1 :]]
    return run_operator(instruction, arguments)


def _averaged(operator: Operator, arguments: list[Any], first: torch.Tensor) -> Any:
    """The result of an average over dimensions or windows; None for what is not plain."""
    name = operator.name
    if not first.is_floating_point() or not first.is_contiguous():
        return None
    if name in _WINDOWS:
        kept, size = first.dim() - _WINDOWS[name], arguments[1]
        plain = kept > 0 and all(isinstance(own, int) and own > 0 for own in size)
        shape = (*first.shape[:kept], *size)
        return torch.empty(shape, dtype=first.dtype, device="meta") if plain else None
    if name != "aten::mean" or operator.overload != "dim" or not arguments[1]:
        return None
    _, listed, keep, dtype = arguments[:4]
    if dtype is not None or not all(-first.dim() <= dim < first.dim() for dim in listed):
        return None
    dims = {dim % first.dim() for dim in listed}
    sizes = [
        1 if at in dims else size for at, size in enumerate(first.shape) if keep or at not in dims
    ]
    if len(dims) != len(listed):
        return None
    return torch.empty(sizes, dtype=first.dtype, device="meta")


def _scalar(name: str, arguments: list[Any]) -> bool:
    """Single numbers stay real: later code may choose its way or its sizes by them."""
    tensors = [value for value in arguments if isinstance(value, torch.Tensor)]
    if tensors:
        return all(value.dim() == 0 and value.device.type != "meta" for value in tensors)
    if name in {"aten::scalar_tensor", "aten::tensor"}:
        return not isinstance(arguments[0], list | tuple)
    return bool(arguments) and arguments[0] == []  # the sizes of a single number


def _keeps_type(names: tuple[str, ...], arguments: list[Any]) -> bool:
    return "dtype" not in names or arguments[names.index("dtype")] is None


def _pointwise(instruction: Instruction, arguments: list[Any], first: torch.Tensor) -> Any:
    """Shape by broadcasting, type by running on one element of each operand."""
    tensors = [value for value in arguments if isinstance(value, torch.Tensor)]
    if any(isinstance(value, list | tuple) for value in arguments):
        return run_operator(instruction, arguments)
    shape = first.shape
    if any(value.shape != shape for value in tensors):
        shape = torch.broadcast_shapes(*(value.shape for value in tensors))  # type: ignore[no-untyped-call]
    if instruction.kind.endswith("_") and not instruction.kind.endswith("__"):
        if shape != first.shape:
            raise RuntimeError(
                f"{instruction.kind}: shape {tuple(shape)} into {tuple(first.shape)}"
            )
        return first
    dtype = _result_type(instruction, arguments)
    strided = next((value for value in tensors if value.shape == shape), None)
    if strided is None:
        return torch.empty(shape, dtype=dtype, device="meta")
    # Keeps the memory format, as torch does: a later view may depend on it.
    return _like(strided, dtype)


_RESULT_TYPES: dict[Any, torch.dtype] = {}
"""What was found by running, by operator and operands; there are few combinations."""
_MOST_RESULT_TYPES = 10_000
"""Whole numbers among the operands could make many in a process that lives long."""


def _result_type(instruction: Instruction, arguments: list[Any]) -> torch.dtype:
    operator = instruction.operator
    assert operator is not None  # noqa: S101  callers pass operator instructions only
    key = (operator.name, operator.overload, *map(_kind_of, arguments))
    if key not in _RESULT_TYPES:
        single = [
            torch.ones([1] * value.dim(), dtype=value.dtype)
            if isinstance(value, torch.Tensor) and value.device.type == "meta"
            else value
            for value in arguments
        ]
        if len(_RESULT_TYPES) >= _MOST_RESULT_TYPES:
            _RESULT_TYPES.clear()
        _RESULT_TYPES[key] = run_operator(instruction, single).dtype
    return _RESULT_TYPES[key]


def _kind_of(argument: Any) -> Any:
    """All of an operand that the type of a result depends on."""
    if isinstance(argument, torch.Tensor):
        return argument.dtype, argument.dim() == 0
    return float if isinstance(argument, float) else (type(argument), argument)


def _like(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if tensor.is_contiguous():  # the usual case, and `empty_like` is slow on this device
        return torch.empty(tensor.shape, dtype=dtype, device="meta")
    return torch.empty_like(tensor, dtype=dtype, device="meta")
