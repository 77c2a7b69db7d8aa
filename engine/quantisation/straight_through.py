r"""Training of weights on a grid: a weight in floating point moves, and is rounded for every step.

The network computes with :math:`w = Q(v)`, where Q finds the scales of each group anew and rounds
to the grid. Q is flat almost everywhere, so its derivative says nothing; the *straight-through
estimator* (Bengio, Leonard & Courville 2013, "Estimating or propagating gradients through
stochastic neurons") takes

.. math:: \frac{\partial L}{\partial v} := \frac{\partial L}{\partial w}

and steps that are each too small to reach the next value of the grid add up in v.

With one bit Q(v) is the sign of v times the mean magnitude of its group (Rastegari et al. 2016,
"XNOR-Net", ECCV, section 3.1). The gradient passes whole, as in DoReFa-Net (Zhou et al. 2016,
equation 6), and v is not clipped to [-1, 1] as in BinaryConnect (Courbariaux, Bengio & David 2015),
for there v has no other meaning than its sign, and here its magnitude makes the scale.

v starts as the weight was before it was rounded, where that is known. Pruned elements of v are zero
and get no gradient, so they stay zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from engine.quantisation.encoding import Encoding
from engine.quantisation.reparametrisation import Reparametrisation

_LATENT = "weight"


class StraightThrough(Reparametrisation):
    """A weight that is rounded for every step.

    Args:
        rounded: Q, on any device.
        encode: the encoding of Q; None for a weight that is stored as it is.
        start: v at the start, of the weight's shape; None for the weight of the program.
    """

    def __init__(
        self,
        rounded: Callable[[Tensor], Tensor],
        *,
        encode: Callable[[Tensor], Encoding] | None = None,
        start: Tensor | None = None,
    ) -> None:
        self._rounded = rounded
        self._encode = encode
        self._start = start

    def begin(self, weight: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """The weight before rounding."""
        start = weight if self._start is None else self._start
        latent = start.detach().to(weight.device, weight.dtype, copy=True)
        return {_LATENT: latent if mask is None else latent.masked_fill_(~mask, 0.0)}

    def value(self, latents: Mapping[str, Tensor]) -> Tensor:
        """Rounded to the grid."""
        return self._rounded(latents[_LATENT].detach())

    def gradients(self, latents: Mapping[str, Tensor], gradient: Tensor) -> dict[str, Tensor]:
        """Passed straight through."""
        return {_LATENT: gradient.to(latents[_LATENT].dtype)}

    def encoding(self, latents: Mapping[str, Tensor]) -> Encoding | None:
        """Of the rounded weight."""
        return None if self._encode is None else self._encode(latents[_LATENT].detach())
