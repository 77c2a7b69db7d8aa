"""SGD that reads memory once a step: cache blocking.

A step is several passes, one after the other, over weight w, gradient g and momentum m:

    g' = g + d w,   m <- mu m + g',   w <- w - lr m        (Nesterov: w <- w - lr (g' + mu m))

Over whole tensors, each pass brings them from memory anew, for a large weight fills the caches more
than once: eleven tensors read or written, where three are read and two written. So all passes are
made over one piece before the next (Lam, Rothberg & Wolf 1991, "The cache performance and
optimizations of blocked algorithms", ASPLOS). Masks go first, in the same visit: to zero the
gradients of masked weights in a pass of their own would read and write them once more.

The passes are those of torch, element by element. Pieces begin at multiples of the width of vector
units, so the result is that of `torch.optim.SGD`, to the bit on one thread; and so is the state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from engine.training.bit_masks import zero_masked
from engine.training.dense import pieces_together


class BlockedSGD(torch.optim.SGD):
    """`torch.optim.SGD` for weights on a CPU, whose steps may be under masks."""

    @torch.no_grad()
    def step_under(self, bits: Mapping[Tensor, Tensor]) -> None:
        """A step by gradients that are zeroed, for good, where their weight is masked.

        Args:
            bits: by parameter; as `engine.training.bit_masks.zero_masked` takes them.
        """
        for group in self.param_groups:
            settings = {
                name: group[name]
                for name in ("weight_decay", "momentum", "lr", "dampening", "nesterov", "maximize")
            }
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, weight.grad, bits.get(weight), settings)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """A step without masks; there is no closure."""
        if closure is not None:
            raise TypeError("a step that evaluates the model again is not made in pieces")
        self.step_under({})

    def _move(
        self, weight: Tensor, gradient: Tensor, bits: Tensor | None, settings: Mapping[str, Any]
    ) -> None:
        if settings["momentum"] and "momentum_buffer" not in self.state[weight]:
            # The first step makes the momentum, in the gradient's own layout.
            if bits is not None:
                zero_masked(gradient, bits)
            made: list[Tensor | None] = [None]
            sgd([weight], [gradient], made, foreach=False, fused=False, **settings)
            self.state[weight]["momentum_buffer"] = made[0]
            return
        visited = [weight.detach(), gradient]
        if bits is not None:
            visited.append(bits)
        if settings["momentum"]:
            visited.append(self.state[weight]["momentum_buffer"])
        for w, g, *others in pieces_together(*visited):
            if bits is not None:
                zero_masked(g, others.pop(0))
            sgd([w], [g], list(others), foreach=False, fused=False, **settings)
