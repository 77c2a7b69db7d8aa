r"""Weights in int8, each output channel with a scale of its own.

A channel :math:`w` (a row of a matrix, a filter of a convolution) is stored as integers

.. math:: q_i = \mathrm{round}(w_i / s), \qquad s = \max_i |w_i| / 127

so that :math:`|w_i - s q_i| \le s / 2`, zero is exact, and no value is cut off. There is no zero
point: products of integers can then be summed without correcting for one (Jacob et al. 2018,
"Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference";
one scale a channel: Krishnamoorthi 2018, "Quantizing deep convolutional networks for efficient
inference: A whitepaper", section 3.1). -128 is not used, which keeps the range symmetric.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.errors import WeightsNotNumbers

LARGEST = 127
"""The largest integer of a weight."""


@dataclass(frozen=True)
class CodedWeight:
    """A weight as integers.

    Attributes:
        codes: int8, of the weight's shape.
        scale: float32, one for each index of dimension 0.
    """

    codes: Tensor
    scale: Tensor

    def decode(self) -> Tensor:
        """The float32 weight that the integers stand for."""
        return self.codes.float() * self.scale.reshape(-1, *[1] * (self.codes.dim() - 1))


def code_channels(weight: Tensor, name: str) -> CodedWeight:
    """Integers and scales of a weight.

    Args:
        weight: float32, at least two dimensions; channels along the first.
        name: for errors.

    Raises:
        WeightsNotNumbers: it holds NaN or an infinity, which no scale could span.
    """
    weight = weight.detach().to("cpu", torch.float32)
    if not bool(weight.isfinite().all()):
        raise WeightsNotNumbers(
            f"the weight `{name}` holds NaN or an infinite value and cannot be quantised",
            hint="repair or retrain the model; such a weight makes its outputs useless as well",
            where=name,
        )
    channels = weight.reshape(weight.shape[0], -1)
    most = channels.abs().amax(dim=1) if channels.shape[1] else channels.new_zeros(len(channels))
    # Below the smallest normal number the quotients would overflow: such a channel is zero.
    scale = torch.where(most >= _SMALLEST, most / LARGEST, torch.ones_like(most))
    codes = (channels / scale[:, None]).round().clamp(-LARGEST, LARGEST).to(torch.int8)
    return CodedWeight(codes.reshape(weight.shape), scale)


_SMALLEST = LARGEST * torch.finfo(torch.float32).tiny
