"""Operators on lists, dictionaries, scalars and types, run in Python.

Their schemas are generic (`t[]`), so torch offers no overload that can be called. The functions
here follow the TorchScript language reference.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Handler = Callable[..., Any]


def _extend(target: list[Any], values: list[Any]) -> None:
    target.extend(values)


def _append(target: list[Any], value: Any) -> list[Any]:
    target.append(value)
    return target


def _set_item(target: Any, key: Any, value: Any) -> Any:
    target[key] = value
    return target


def _delete(target: Any, key: Any) -> None:
    del target[key]


def _insert(target: list[Any], position: int, value: Any) -> None:
    target.insert(position, value)


def _slice(values: Any, start: int | None, stop: int | None, step: int) -> Any:
    return values[slice(start, stop, step)]


def _sorted(values: list[Any], reverse: bool = False) -> list[Any]:
    return sorted(values, reverse=reverse)


def _format(template: str, *values: Any) -> str:
    return template.format(*values)


def _number_to_tensor(value: Any) -> torch.Tensor:
    return torch.tensor(value)


def _dtype(value: torch.Tensor) -> torch.dtype:
    return value.dtype


def _device(value: torch.Tensor) -> torch.device:
    return value.device


def _identity(value: Any, *_: Any) -> Any:
    return value


CONTAINERS: dict[str, Handler] = {
    "aten::len": len,
    "aten::append": _append,
    "aten::extend": _extend,
    "aten::insert": _insert,
    "aten::pop": lambda values, key=-1: values.pop(key),
    "aten::clear": lambda values: values.clear(),
    "aten::reverse": lambda values: values.reverse(),
    "aten::remove": list.remove,
    "aten::list": list,
    "aten::dict": dict,
    "aten::sorted": _sorted,
    "aten::keys": lambda values: list(values.keys()),
    "aten::values": lambda values: list(values.values()),
    "aten::items": lambda values: list(values.items()),
    "aten::get": lambda values, key, default=None: values.get(key, default),
    "aten::__contains__": lambda values, key: key in values,
    "aten::_set_item": _set_item,
    "aten::Delete": _delete,
    "aten::format": _format,
    "aten::__is__": lambda a, b: a is b,
    "aten::__isnot__": lambda a, b: a is not b,
    "aten::__not__": lambda a: not a,
    "aten::warn": lambda *_: None,
    "prim::NumToTensor": _number_to_tensor,
    "prim::unchecked_cast": _identity,
    "prim::unchecked_unwrap_optional": _identity,
    "aten::_unwrap_optional": _identity,
    "prim::rangelist": lambda stop: list(range(stop)),
    "prim::dtype": _dtype,
    "prim::device": _device,
    "prim::data": lambda value: value.detach(),
    "prim::shape": lambda value: list(value.shape),
    "prim::layout": lambda value: value.layout,
    "prim::is_cuda": lambda value: value.is_cuda,
    "prim::requires_grad": lambda value: value.requires_grad,
    "prim::ListConstruct": lambda *values: list(values),
    "prim::TupleConstruct": lambda *values: tuple(values),
    "prim::DictConstruct": lambda *values: dict(zip(values[::2], values[1::2], strict=True)),
    "prim::TupleIndex": lambda values, position: values[position],
    "prim::Uninitialized": lambda: None,
    "prim::Print": lambda *_: None,
    "prim::AutogradZero": lambda: None,
}
"""By kind; these never see the visitor, for they hold no arithmetic on tensors."""

LIST_OPERATORS: dict[str, Handler] = {
    "aten::__getitem__": lambda values, key: values[key],
    "aten::slice": _slice,
    "aten::add": lambda a, b: a + b,
    "aten::add_": _extend,
    "aten::mul": lambda a, b: a * b,
    "aten::eq": lambda a, b: a == b,
    "aten::ne": lambda a, b: a != b,
    "aten::copy": lambda values: values.copy(),
    "aten::index": list.index,
    "aten::count": list.count,
    "prim::min": min,
    "prim::max": max,
}
"""By kind, when the first argument is a Python list, dictionary or string."""
