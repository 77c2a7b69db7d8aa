"""Weights as torch's int8 operators read them, and how each is stored in a file.

Torch packs a weight for the processor it runs on. What a file holds is the integers and scales of
before; the TorchScript text that `restore` and `store` write packs them when the file is loaded,
with the engine of the machine that loads it, and takes them out again when it is saved.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from engine.quantisation.int8.weights import CodedWeight

Convolution = Literal["conv1d", "conv2d", "conv3d"]


@dataclass(frozen=True)
class Storing:
    """How one weight is taken out of a module.

    Attributes:
        first: a line that comes before the others, or nothing.
        weight: lines that append its integers to `codes` and its scales to `numbers`.
        bias: lines that append its bias to `numbers`.
    """

    first: str
    weight: list[str]
    bias: list[str]


class Packed(ABC):
    """One packed weight, or two that are read together."""

    @property
    @abstractmethod
    def stored(self) -> list[tuple[CodedWeight, Tensor | None]]:
        """Weights and biases, in the order in which they are stored."""

    @abstractmethod
    def fields(self, name: str) -> dict[str, Any]:
        """What a module holds, by field name; the field `name` is what operators read."""

    @abstractmethod
    def restore(self, name: str, weights: Sequence[str], biases: Sequence[str]) -> list[str]:
        """Lines that set the fields.

        Args:
            name: of the field.
            weights: for each stored weight an expression for its quantised tensor.
            biases: for each an expression for its bias.
        """

    @abstractmethod
    def store(self, name: str) -> list[Storing]:
        """For each stored weight the lines that take it out of its field again."""


@dataclass(frozen=True)
class PackedLinear(Packed):
    """The weight of a linear layer.

    Attributes:
        weight: outputs x inputs.
        bias: float32, one an output, or None.
    """

    weight: CodedWeight
    bias: Tensor | None

    @property
    def stored(self) -> list[tuple[CodedWeight, Tensor | None]]:
        """The one weight."""
        return [(self.weight, self.bias)]

    def pack(self) -> Any:
        """Torch's packed weight."""
        return torch.ops.quantized.linear_prepack(quantised(self.weight), self.bias)

    def fields(self, name: str) -> dict[str, Any]:
        """The packed weight alone."""
        return {name: self.pack()}

    def restore(self, name: str, weights: Sequence[str], biases: Sequence[str]) -> list[str]:
        """Pack it."""
        return [f"self.{name} = ops.quantized.linear_prepack({weights[0]}, {biases[0]})"]

    def store(self, name: str) -> list[Storing]:
        """Unpack it."""
        return _store("linear_unpack", name)


@dataclass(frozen=True)
class PackedConvolution(Packed):
    """The weight of a convolution, with what torch packs beside it.

    Attributes:
        kind: by the number of spatial dimensions.
        weight: outputs x inputs of a group x kernel.
        bias: float32, one an output, or None.
        stride, padding, dilation: one number for each spatial dimension.
        groups: of channels.
    """

    kind: Convolution
    weight: CodedWeight
    bias: Tensor | None
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @property
    def stored(self) -> list[tuple[CodedWeight, Tensor | None]]:
        """The one weight."""
        return [(self.weight, self.bias)]

    def fields(self, name: str) -> dict[str, Any]:
        """The packed weight alone."""
        pack = getattr(torch.ops.quantized, f"{self.kind}_prepack")
        return {name: pack(quantised(self.weight), self.bias, *self._geometry)}

    def restore(self, name: str, weights: Sequence[str], biases: Sequence[str]) -> list[str]:
        """Pack it."""
        given = ", ".join([weights[0], biases[0], *(repr(item) for item in self._geometry)])
        return [f"self.{name} = ops.quantized.{self.kind}_prepack({given})"]

    def store(self, name: str) -> list[Storing]:
        """Unpack it."""
        return _store(f"{self.kind}_unpack", name)

    @property
    def _geometry(self) -> tuple[list[int], list[int], list[int], int]:
        return [*self.stride], [*self.padding], [*self.dilation], self.groups


@dataclass(frozen=True)
class PackedCell(Packed):
    """One direction of one layer of an LSTM or a GRU.

    Attributes:
        inner: reads the inputs.
        hidden: reads the hidden state. Both have a bias, of zeros where the layer has none.
    """

    inner: PackedLinear
    hidden: PackedLinear

    @property
    def stored(self) -> list[tuple[CodedWeight, Tensor | None]]:
        """Both weights."""
        return [*self.inner.stored, *self.hidden.stored]

    def fields(self, name: str) -> dict[str, Any]:
        """The cell, and its weights, which it shares."""
        inner, hidden = self.inner.pack(), self.hidden.pack()
        cell = torch.ops.quantized.make_quantized_cell_params_dynamic(
            inner, hidden, self.inner.bias, self.hidden.bias, REDUCED
        )
        return {name: cell, f"{name}i": inner, f"{name}h": hidden}

    def restore(self, name: str, weights: Sequence[str], biases: Sequence[str]) -> list[str]:
        """Pack both weights, then the cell."""
        return [
            *self.inner.restore(f"{name}i", weights[:1], biases[:1]),
            *self.hidden.restore(f"{name}h", weights[1:], biases[1:]),
            f"self.{name} = ops.quantized.make_quantized_cell_params_dynamic("
            f"self.{name}i, self.{name}h, {biases[0]}, {biases[1]}, {REDUCED})",
        ]

    def store(self, name: str) -> list[Storing]:
        """Unpack both weights."""
        return [*self.inner.store(f"{name}i"), *self.hidden.store(f"{name}h")]


@dataclass(frozen=True)
class StoredWeight(Packed):
    """A weight that is stored as integers, and computes in floating point.

    Attributes:
        weight: of two or more dimensions, channels along the first.
    """

    weight: CodedWeight

    @property
    def stored(self) -> list[tuple[CodedWeight, Tensor | None]]:
        """The one weight."""
        return [(self.weight, None)]

    def fields(self, name: str) -> dict[str, Any]:
        """The decoded weight, and the scale that gives its integers back."""
        return {name: self.weight.decode(), f"{name}s": self.weight.scale}

    def restore(self, name: str, weights: Sequence[str], biases: Sequence[str]) -> list[str]:
        """Decode it."""
        del biases
        return [
            f"self.{name} = torch.dequantize({weights[0]})",
            f"self.{name}s = torch.q_per_channel_scales({weights[0]}).to(torch.float)",
        ]

    def store(self, name: str) -> list[Storing]:
        """Divide by the scale: the weight is an exact multiple, to rounding."""
        ones = [1] * (self.weight.codes.dim() - 1)
        codes = f"torch.round(self.{name} / self.{name}s.view({[-1, *ones]})).to(torch.int8)"
        return [
            Storing("", [f"codes.append({codes}.flatten())", f"numbers.append(self.{name}s)"], [])
        ]


REDUCED = True
"""Activations of 7 bits: two products of int8 and uint8 fit into the 16 bits in which processors
without VNNI instructions add them, so that no sum is cut off anywhere."""


def quantised(weight: CodedWeight) -> Tensor:
    """Torch's quantised tensor of a coded weight."""
    made: Tensor = torch._make_per_channel_quantized_tensor(
        weight.codes, weight.scale, torch.zeros(len(weight.scale), dtype=torch.int32), 0
    )
    return made


def _store(unpack: str, name: str) -> list[Storing]:
    return [
        Storing(
            f"w, b = ops.quantized.{unpack}(self.{name})",
            [
                "codes.append(w.int_repr().flatten())",
                "numbers.append(w.q_per_channel_scales().to(torch.float))",
            ],
            ["if b is not None:", "    numbers.append(b)"],
        )
    ]
