"""Weights that follow from latent tensors while they are trained (see
`engine.quantisation.reparametrisation`).

Between two steps each of these weights in the program is what its latents give. The optimiser, the
limits of gradients and the average over steps see the latents in the place of the weights; the way
forward, the way back, masks and the exchange between processes see the weights as ever. Carrying
gradients from weights to latents is linear in them, so it may come after the exchange.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from engine.quantisation.encoding import Encodings
from engine.quantisation.reparametrisation import Reparametrisations
from engine.training.bit_masks import BitMasks
from engine.training.denormals import zero_subnormal
from engine.training.state import copy_tensors, snapshot


class Latents:
    """The latent tensors of a student.

    Attributes:
        tensors: by name of the weight and of its latent; their gradients are where optimisers look.
    """

    def __init__(
        self,
        rules: Reparametrisations,
        parameters: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
    ) -> None:
        """Args:
        rules: of the weights that follow from latents.
        parameters: of the student, by name; the weights among them get their values.
        masks: on the device of the weights; they hold through the run.
        """
        self._rules = {name: rule for name, rule in rules.items() if name in parameters}
        self._weights = {name: parameters[name] for name in self._rules}
        self._masks = {name: mask for name, mask in masks.items() if name in self._rules}
        self._bits = BitMasks()
        self._names: dict[str, dict[str, str]] = {}
        self.tensors: dict[str, Tensor] = {}
        for name, rule in self._rules.items():
            begun = rule.begin(self._weights[name].detach(), masks.get(name))
            self._names[name] = {part: f"{name}:{part}" for part in begun}
            for part, tensor in begun.items():
                self.tensors[f"{name}:{part}"] = tensor.requires_grad_(True)
        self.show(self._weights)

    def __contains__(self, name: object) -> bool:
        """Whether a weight follows from latents."""
        return name in self._rules

    def in_place_of(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What moves: the latents instead of the weights that follow from them."""
        rest = {name: held for name, held in parameters.items() if name not in self._rules}
        return rest | self.tensors

    @torch.no_grad()
    def carry_gradients(self) -> None:
        """Bring the gradients of the weights to the latents; the weights have none afterwards."""
        for name, rule in self._rules.items():
            gradient = self._weights[name].grad
            latents = self._of(name, self.tensors)
            found = {} if gradient is None else rule.gradients(latents, gradient)
            for part, latent in latents.items():
                latent.grad = found.get(part)
        self.forget_gradients()

    def forget_gradients(self) -> None:
        """Of the weights; those of the latents are the optimiser's."""
        for weight in self._weights.values():
            weight.grad = None

    @torch.no_grad()
    def show(
        self, weights: Mapping[str, Tensor], tensors: Mapping[str, Tensor] | None = None
    ) -> None:
        """Write what latents give into weights.

        Args:
            weights: by name; those that follow from latents are overwritten.
            tensors: the latents; None for those in training. Others are taken in their types.
        """
        for name, rule in self._rules.items():
            value = rule.value(self._of(name, self.tensors if tensors is None else tensors))
            weights[name].copy_(value)
        if self._masks:
            self._bits.zero_weights(weights, self._masks)

    def moved(self) -> None:
        """After a step of the optimiser: the weights follow."""
        self.show(self._weights)

    def settle(self) -> None:
        """End an epoch: clean up."""
        zero_subnormal(self.tensors)
        self.show(self._weights)

    def memory(self) -> dict[str, Tensor]:
        """What a resumed run must be told."""
        return snapshot(self.tensors)

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        """Go on from there."""
        copy_tensors(memory, self.tensors)
        self.show(self._weights)

    def _of(self, name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            part: tensors[key].to(self.tensors[key].dtype)
            for part, key in self._names[name].items()
        }


def encodings_of(
    rules: Reparametrisations, latents: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> Encodings:
    """How the weights that a run gave are stored.

    Args:
        rules: of the run; encodings lie on the CPU, whatever the device of the run.
        latents: that its result follows from, by the names of `Latents.tensors`.
        weights: of its result.

    Raises:
        RuntimeError: a weight is not what its encoding decodes to.
    """
    made: Encodings = {}
    for name, rule in rules.items():
        own = _own(name, latents)
        if not own:
            continue  # frozen: it is stored as it was
        weight = weights[name].detach()
        encoding = rule.encoding({part: one.to(weight.device) for part, one in own.items()})
        if encoding is None:
            continue
        kind = type(encoding)
        plain = encoding.to_plain()
        made[name] = kind.from_plain(
            {key: part.cpu() if isinstance(part, Tensor) else part for key, part in plain.items()}
        )
        decoded = encoding.decode().to(weight.device)
        if decoded.dtype != weight.dtype or not torch.equal(decoded, weight):
            raise RuntimeError(f"`{name}` is not what its encoding decodes to")
    return made


def _own(name: str, latents: Mapping[str, Tensor]) -> dict[str, Tensor]:
    beginning = f"{name}:"
    return {
        key.removeprefix(beginning): latent
        for key, latent in latents.items()
        if key.startswith(beginning)
    }
