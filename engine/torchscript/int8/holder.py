"""A module that holds packed weights and is stored as two tensors: all integers, all numbers.

One record of a file takes a few hundred bytes of headers, so many small tensors would make a small
network's file bigger than its weights. `__setstate__` of the module cuts the two tensors apart when
a file is loaded: where each weight lies is written into its text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from engine.quantisation.int8.weights import CodedWeight
from engine.torchscript.int8.packed import Packed

CLASS = "Int8Weights"


class Holder:
    """Packed weights under the names `p0`, `p1` and so on.

    Attributes:
        module: a `torch._C.ScriptModule`.
    """

    def __init__(self, packed: Sequence[Packed], fields: Sequence[Mapping[str, Any]]) -> None:
        """Args: packed: weights. fields: what each of them gives for the module to hold."""
        make: Any = torch._C.ScriptModule
        self.module = make(CLASS, torch._C.CompilationUnit(), True)
        for held in fields:
            for name, value in held.items():
                self.module._register_attribute(name, kind_of(value), value)
        self.module._register_attribute("training", torch._C.BoolType.get(), False)
        concrete = torch._C.ConcreteModuleType.from_jit_type(self.module._type())
        self.module._define(concrete, _text(packed), _NAMES.get)


def kind_of(value: Any) -> Any:
    """The type of what a field holds: a tensor, or an object of torch."""
    return torch._C.TensorType.get() if isinstance(value, torch.Tensor) else value._type()


def field_of(number: int) -> str:
    """The name of a packed weight in the module."""
    return f"p{number}"


_NAMES = {"torch": torch, "ops": torch.ops, "Tensor": torch.Tensor}


def _text(packed: Sequence[Packed]) -> str:
    layout = _Layout()
    saving: list[str] = []
    loading: list[str] = []
    for index, item in enumerate(packed):
        name = field_of(index)
        weights, biases = [], []
        for (weight, bias), storing in zip(item.stored, item.store(name), strict=True):
            known = layout.knows(weight)
            if not known or bias is not None:
                saving += [storing.first] * bool(storing.first)
                saving += [] if known else storing.weight
                saving += [] if bias is None else storing.bias
            weights.append(layout.weight(weight))
            biases.append(layout.bias(bias))
        loading += item.restore(name, weights, biases)
    return "\n".join(
        [
            "def __getstate__(self) -> Tuple[Tensor, Tensor]:",
            "    codes: List[Tensor] = []",
            "    numbers: List[Tensor] = []",
            *(f"    {line}" for line in saving),
            "    return (torch.cat(codes), torch.cat(numbers))",
            "def __setstate__(self, state: Tuple[Tensor, Tensor]) -> None:",
            "    codes, numbers = state",
            *(f"    {line}" for line in loading),
            "    self.training = False",
            "",
        ]
    )


class _Layout:
    """Where each weight lies in the two stored tensors, once however often it is packed."""

    def __init__(self) -> None:
        self._codes = 0
        self._numbers = 0
        self._known: dict[int, str] = {}

    def knows(self, weight: CodedWeight) -> bool:
        """Whether it has its place already."""
        return id(weight) in self._known

    def weight(self, weight: CodedWeight) -> str:
        """An expression for the quantised tensor."""
        if id(weight) not in self._known:
            shape, channels = list(weight.codes.shape), len(weight.scale)
            start, self._codes = self._codes, self._codes + weight.codes.numel()
            self._known[id(weight)] = (
                "torch._make_per_channel_quantized_tensor("
                f"codes[{start}:{self._codes}].view({shape}), {self._cut(channels)}, "
                f"torch.zeros([{channels}], dtype=torch.int), 0)"
            )
        return self._known[id(weight)]

    def bias(self, bias: torch.Tensor | None) -> str:
        """An expression for the bias."""
        return "None" if bias is None else self._cut(len(bias))

    def _cut(self, length: int) -> str:
        start, self._numbers = self._numbers, self._numbers + length
        return f"numbers[{start}:{self._numbers}]"
