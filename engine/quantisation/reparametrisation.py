r"""How a weight that is stored in few bits is trained: by tensors it follows from.

A step of an optimiser moves a weight off the values that its storage has. So the optimiser does not
see the weight: it moves *latent* tensors :math:`\theta`, and the network computes with

.. math:: w = f(\theta)

after every step. The gradient :math:`g = \partial L / \partial w` that the way back leaves at the
weight is carried on to the latents, by the chain rule where f has a derivative and by an estimate
where it has none. At any moment w can be stored without changing a bit of it.

This module says what every such f must answer; `engine.training.latents` keeps the tensors of a
training run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor

from engine.quantisation.encoding import Encoding


class Reparametrisation(ABC):
    """How one weight follows from latent tensors, which it is given and never keeps."""

    @abstractmethod
    def begin(self, weight: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """The latents that training starts from, floating point, by name.

        Args:
            weight: as the program has it, on the device of the training; it is not kept.
            mask: bool, True where the weight stays; where it does not, gradients are zero.
        """

    @abstractmethod
    def value(self, latents: Mapping[str, Tensor]) -> Tensor:
        """The weight, of its own shape."""

    @abstractmethod
    def gradients(self, latents: Mapping[str, Tensor], gradient: Tensor) -> dict[str, Tensor]:
        """What the latents follow.

        Args:
            latents: that the weight was computed from.
            gradient: of the loss by the weight, of the weight's shape.
        """

    @abstractmethod
    def encoding(self, latents: Mapping[str, Tensor]) -> Encoding | None:
        """How the weight is stored, which decodes to `value`, bit for bit; None for as it is.

        Args:
            latents: on the device of the training: sums there may differ in the last bit.
        """


Reparametrisations = Mapping[str, Reparametrisation]
"""By qualified name of the weight, as `Program.parameters` has it."""
