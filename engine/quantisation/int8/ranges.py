r"""How activations become integers: a scale and a zero point for each place of a program.

A range :math:`[l, h]`, widened to hold zero, is cut into 127 equal steps:

.. math:: s = (h - l) / 127, \qquad z = \mathrm{round}(-l / s), \qquad
          x \approx s (q - z), \quad q = \mathrm{round}(x / s) + z

Zero has an integer of its own, so padding is exact. Steps are of 7 bits and integers of 8: what
exceeds the calibrated range at run time has the integers 128 to 255 to go to, half as much again
and more, before it is cut off (see `engine.torchscript.int8.packed.REDUCED` for why not 255 steps).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

STEPS = 127
_SMALLEST = torch.finfo(torch.float32).eps
"""Smallest scale, as in torch: below it products of scales leave the normal range of float32."""


@dataclass(frozen=True)
class ActivationRange:
    """Scale and zero point of one place.

    Attributes:
        scale: a step.
        zero_point: the integer of zero, 0 to 127.
        dims: how many dimensions the tensor has, where that is known.
    """

    scale: float
    zero_point: int
    dims: int | None = None

    @classmethod
    def of(cls, low: float, high: float, dims: int | None = None) -> ActivationRange:
        """The range that spans two values, and zero."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max((high - low) / STEPS, _SMALLEST)
        return cls(scale, min(max(round(-low / scale), 0), STEPS), dims)

    def rounded(self, values: Tensor) -> Tensor:
        """Values as the integers stand for them, in floating point."""
        codes = (values / self.scale).round() + self.zero_point
        return (codes.clamp(0, 255) - self.zero_point) * self.scale

    def to_plain(self) -> dict[str, Any]:
        """Plain data, for checkpoints."""
        return {"scale": self.scale, "zero_point": self.zero_point, "dims": self.dims}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> ActivationRange:
        """The inverse of `to_plain`."""
        return cls(float(plain["scale"]), int(plain["zero_point"]), plain["dims"])


Ranges = dict[str, ActivationRange]
"""By place: the name of the operator whose output it is, or with a position the operand's."""
