"""Masks as bits: what is masked becomes zero by a bitwise and.

A number of n bits is anded with all ones where it stays and with all zeros where it goes, which is
+0.0 in every float type. So infinities and NaN become zero too, as filling makes them, where a
product would leave NaN; and it takes a tenth of the time of filling on a CPU, for it is done in the
width of the vector units.

A mask is kept as one byte a weight, -1 or 0, whose sign fills the wider number: a third of what
memory has to bring for an and is the mask where it is as wide as the weight. It is widened piece by
piece in the cache (see `engine.training.dense`), so there is no second mask of the weights' size.

Masked weights get no gradient, and the update of SGD, Adam and AdamW is, element by element, zero
where gradient, weight and what the optimiser remembers are zero. So masks that hold from the first
step on need not be applied to the weights after each step (see decision 0043 for those that do).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from engine.training.dense import pieces_together

_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class BitMasks:
    """The masks of a run, in bits; made anew where they change."""

    def __init__(self) -> None:
        self._of: Mapping[str, Tensor] | None = None
        self._bits: dict[str, Tensor] = {}

    def zero_weights(self, parameters: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> None:
        """Zero what is masked, for good.

        Args:
            parameters: by name.
            masks: bool, True where the weight stays, on the device of the parameters; replaced and
                never changed in place.
        """
        for name, bits in self._made(parameters, masks).items():
            zero_masked(parameters[name], bits)

    def zero_gradients(self, parameters: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> None:
        """Zero the gradients of what is masked; parameters without one are left out."""
        for name, bits in self._made(parameters, masks).items():
            gradient = parameters[name].grad
            if gradient is not None:
                zero_masked(gradient, bits)

    def by_parameter(
        self, parameters: Mapping[str, Tensor], masks: Mapping[str, Tensor]
    ) -> dict[Tensor, Tensor]:
        """The bits of each masked parameter, int8 of its shape, for `zero_masked`."""
        return {parameters[name]: bits for name, bits in self._made(parameters, masks).items()}

    def _made(
        self, parameters: Mapping[str, Tensor], masks: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        if masks is not self._of:
            self._of = masks
            self._bits = {name: _bits(mask, parameters[name]) for name, mask in masks.items()}
        return self._bits


@torch.no_grad()
def zero_masked(tensor: Tensor, bits: Tensor) -> None:
    """Zero a tensor of any float type where the bits are 0; they are -1 everywhere else."""
    for part, kept in pieces_together(tensor.detach(), bits):
        part.view(_BITS[part.element_size()]).bitwise_and_(kept)


@torch.no_grad()
def _bits(mask: Tensor, weight: Tensor) -> Tensor:
    """-1 where the mask is True, otherwise 0; in the memory order of the weight."""
    made = torch.empty_like(weight, dtype=torch.int8)
    return made.copy_(mask).neg_()
