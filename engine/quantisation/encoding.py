"""How one weight is stored: small tensors, and stock operators that give the weight back.

Between stages a job keeps its program in floating point, with weights that already have the values
that decoding gives; its encodings lie beside it, by name of the weight. Only when a file is written
do the stored tensors take the place of the weights (see `engine.quantisation.packaging`), so
everything that measures, certifies or trains a program needs to know nothing of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class Encoding(ABC):
    """A stored weight.

    Attributes:
        shape: of the weight.
        dtype: of the weight, floating point.
        scheme: its name in reports and checkpoints.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype

    scheme: ClassVar[str]

    @property
    @abstractmethod
    def parts(self) -> dict[str, Tensor]:
        """The stored tensors, in the order in which the decoder takes them."""

    @property
    @abstractmethod
    def decoder(self) -> str:
        """TorchScript source of `decode(<parts>) -> Tensor`, of stock operators alone.

        It gives a tensor of `shape` and `dtype`. Shapes are written into it as constants.
        """

    @abstractmethod
    def decode(self) -> Tensor:
        """The weight, bit for bit what the decoder gives."""

    @property
    def packed_parts(self) -> dict[str, tuple[int, int]]:
        """Of the parts that are packed numbers: how many, and of how many bits.

        See `engine.quantisation.index_packing`.
        """
        return {}

    @abstractmethod
    def to_plain(self) -> dict[str, Any]:
        """Plain data and tensors, for checkpoints."""

    @classmethod
    @abstractmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Encoding:
        """The inverse of `to_plain`."""

    @property
    def bits(self) -> float:
        """Bits stored for each weight, scales and tables included."""
        elements = max(torch.Size(self.shape).numel(), 1)
        return 8 * self.stored_bytes / elements

    @property
    def stored_bytes(self) -> int:
        """Bytes of the stored tensors."""
        return sum(part.numel() * part.element_size() for part in self.parts.values())


Encodings = dict[str, Encoding]
"""By qualified name of the weight."""
