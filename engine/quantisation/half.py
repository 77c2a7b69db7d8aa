r"""Weights in half precision: 16 bits each, cast back by one stock operator.

float16 has 11 bits of significand and ends at 65504, bfloat16 has 8 and the range of float32.
Rounding to the nearest moves a weight by at most the unit roundoff times its size,

.. math:: |w' - w| \le u\,|w|, \qquad u = 2^{-11} \text{ (float16)}, \quad 2^{-8} \text{ (bfloat16)}

as long as it is in the normal range; below :math:`2^{-14}` float16 is spaced by :math:`2^{-24}`.
What is beyond the range would become infinite and is refused by name.

This is storage alone: the program computes in the type of its weights. For a program that computes
in half precision see `engine.quantisation.half_compute`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from engine.errors import EngineError, WeightsNotNumbers
from engine.quantisation.encoding import Encoding

HalfKind = Literal["fp16", "bf16"]
HALVES: dict[HalfKind, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16}
"""By the name that recipes use."""


class OutOfHalfRange(EngineError):
    """A number is beyond the largest that the half type has."""

    type = "out-of-half-range"


@dataclass(frozen=True)
class Half(Encoding):
    """A weight stored in float16 or bfloat16.

    Attributes:
        half: the stored tensor, of the weight's shape.
    """

    half: Tensor

    scheme: ClassVar[str] = "half"

    @property
    def parts(self) -> dict[str, Tensor]:
        """`rounded` alone; modules have a method `half`."""
        return {"rounded": self.half}

    @property
    def decoder(self) -> str:
        """A cast."""
        return f"def decode(rounded: Tensor) -> Tensor:\n    return rounded.to({self.dtype})\n"

    def decode(self) -> Tensor:
        """The weight, rounded to the half type."""
        return self.half.to(self.dtype)

    def to_plain(self) -> dict[str, Any]:
        """The type of the weight by name, and the stored tensor."""
        return {"half": self.half, "dtype": str(self.dtype).removeprefix("torch.")}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Half:
        """The inverse of `to_plain`."""
        half: Tensor = plain["half"]
        return cls(tuple(half.shape), getattr(torch, plain["dtype"]), half)


@torch.no_grad()
def to_half(name: str, weight: Tensor, kind: HalfKind) -> Half:
    """Round a weight to the nearest numbers of a half type.

    Args:
        name: of the weight, for errors.
        weight: float32 or float64, of any shape.
        kind: the half type.

    Raises:
        WeightsNotNumbers: it holds NaN or infinity.
        OutOfHalfRange: it holds a number that the half type does not have.
    """
    half = weight.detach().to(HALVES[kind])
    if not bool(half.isfinite().all()):
        _refuse(name, weight, kind)
    return Half(tuple(weight.shape), weight.dtype, half.contiguous())


def beyond_half(tensor: Tensor, dtype: torch.dtype) -> bool:
    """Whether a finite number of a tensor would become infinite."""
    return bool((tensor.isfinite() & ~tensor.to(dtype).isfinite()).any())


def wide_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those that half precision makes smaller: floats of more than 16 bits."""
    return {
        name: tensor
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and tensor.dtype.itemsize > 2
    }


def refuse_beyond(tensors: Iterable[tuple[str, Tensor]], kind: HalfKind) -> None:
    """Hold weights against the range of a half type.

    Raises:
        WeightsNotNumbers, OutOfHalfRange: as `to_half`.
    """
    for name, tensor in tensors:
        if not bool(tensor.to(HALVES[kind]).isfinite().all()):
            _refuse(name, tensor, kind)


def _refuse(name: str, weight: Tensor, kind: HalfKind) -> None:
    if not bool(weight.isfinite().all()):
        raise WeightsNotNumbers(
            f"the weight `{name}` holds NaN or infinity",
            hint="upload a model that was trained to numbers, or `exclude` the layer",
            where=name,
        )
    largest = float(weight.abs().max())
    raise OutOfHalfRange(
        f"the weight `{name}` holds {largest:g}, and {kind} ends at "
        f"{torch.finfo(HALVES[kind]).max:g}",
        hint="`exclude` the layer"
        + (", or use `scheme: bf16`, which has the range of float32" if kind == "fp16" else ""),
        where=name,
    )
