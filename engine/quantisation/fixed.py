"""A stored weight that stays as it is while others are trained."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from engine.quantisation.encoding import Encoding
from engine.quantisation.reparametrisation import Reparametrisation


class Fixed(Reparametrisation):
    """A weight that follows from nothing that moves.

    Args:
        encoding: of the weight.
    """

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding

    def begin(self, weight: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """No latents."""
        del weight, mask
        return {}

    def value(self, latents: Mapping[str, Tensor]) -> Tensor:
        """What is stored."""
        del latents
        return self._encoding.decode()

    def gradients(self, latents: Mapping[str, Tensor], gradient: Tensor) -> dict[str, Tensor]:
        """None."""
        del latents, gradient
        return {}

    def encoding(self, latents: Mapping[str, Tensor]) -> Encoding:
        """As it was."""
        del latents
        return self._encoding
