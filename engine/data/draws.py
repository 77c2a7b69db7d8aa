"""Random numbers of one sample, whatever batch it comes in and whoever asks first.

A generator gives numbers in the order of asking, which a prefetching thread, a resumed job or
another batch size would change. So each number here is a function of what it is for: the 64-bit
key of (seed, purpose, epoch), the number of the transform and the row are mixed by the finaliser
of SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators", OOPSLA),

    z <- (z xor z >> 30) * 0xbf58476d1ce4e5b9
    z <- (z xor z >> 27) * 0x94d049bb133111eb
    z <- z xor z >> 31

a bijection in which every input bit moves about half of the output bits. The upper 53 bits, times
2^-53, are uniform on [0, 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.seeds import derive

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True)
class Draw:
    """What random transforms of one pass over a split are drawn from.

    Attributes:
        key: of the pass.
    """

    key: int

    @classmethod
    def of(cls, seed: int, *purpose: str | int) -> Draw:
        """The draw of one purpose, such as an epoch of a training run."""
        return cls(derive(seed, *purpose, "transforms"))

    def uniform(self, rows: Tensor, stream: int) -> Tensor:
        """A number in [0, 1) for each row, float64.

        Args:
            rows: positions in the split.
            stream: numbers of other streams are independent.
        """
        numbered = np.asarray([stream + 1], dtype=np.uint64) * _GOLDEN
        start = _mixed(np.asarray([self.key], dtype=np.uint64) + numbered)
        counted = rows.numpy().astype(np.uint64) * _GOLDEN
        bits = _mixed(_mixed(counted) ^ start)
        return torch.from_numpy((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53)

    def integers(self, rows: Tensor, stream: int, below: int) -> Tensor:
        """A whole number from 0 below a bound for each row, int64."""
        return (self.uniform(rows, stream) * below).to(torch.int64)


def _mixed(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    bits = (bits ^ (bits >> np.uint64(30))) * _FIRST
    bits = (bits ^ (bits >> np.uint64(27))) * _SECOND
    return bits ^ (bits >> np.uint64(31))
