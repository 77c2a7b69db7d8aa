"""Learned supermasks: the mask is trained by gradient, the weights never are.

Zhou et al. 2019, section 5: every weight w has a logit v and is kept with probability sigma(v).
Each step draws a mask and runs the network with it,

    m ~ Bernoulli(sigma(v)),    w' = m w    (times N / sum m with dynamic weight rescaling)

and its gradient passes the draw straight through to the probability:

    dL/dv = dL/dw' . w . sigma(v) (1 - sigma(v))    (times the same factor)

Logits start where the expected share of kept weights is the one asked for. At the end the weights
with the highest logits are kept, as many as the allocation says; the paper draws masks instead.

It is an optimiser, as training sees it: what moves are logits, and the weights the network runs
with follow from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import log
from typing import Any

import torch
from secateur.recipe import Optimizer as OptimizerOptions
from torch import Tensor

from engine.seeds import generator
from engine.training.optimizer import build_optimizer


class MaskLogits(torch.optim.Optimizer):
    """Optimises the logits of the masks of some weights; nothing else moves.

    Args:
        parameters: of the network in training, by name; those masked are overwritten.
        initial: the weights to mask, by name.
        kept: share to keep at the start, by name, in (0, 1).
        options: how the logits move.
        seed: of the draws.
        rescale: dynamic weight rescaling.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        initial: Mapping[str, Tensor],
        kept: Mapping[str, float],
        options: OptimizerOptions,
        *,
        seed: int,
        rescale: bool,
    ) -> None:
        self._parameters = dict(parameters)
        self._seed = seed
        self._rescale = rescale
        self._drawn = 0
        self._weights = {
            name: initial[name].detach().to(parameters[name].device).float() for name in kept
        }
        self.logits = {
            name: torch.full_like(self._weights[name], log(share / (1 - share)))
            for name, share in kept.items()
        }
        self._inner = build_optimizer(options, self.logits.values())
        super().__init__(list(self.logits.values()), {"lr": options.rate})
        # The learning-rate schedule writes here, and the inner optimiser reads.
        self.param_groups = self._inner.param_groups
        self._factors: dict[str, float] = {}
        self._draw()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of the network."""
        for parameter in self._parameters.values():
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.zero_()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move the logits by the gradients of the masked weights, and draw new masks."""
        if closure is not None:
            raise ValueError("masks are learned without a closure")
        for name, logit in self.logits.items():
            gradient = self._parameters[name].grad
            if gradient is not None:
                chance = logit.sigmoid()
                through = self._weights[name] * chance * (1 - chance) * self._factors[name]
                logit.grad = gradient.float() * through
        self._inner.step()
        self._draw()

    def state_dict(self) -> dict[str, Any]:
        """Logits, the optimiser's state and the number of draws."""
        return {
            "logits": {name: logit.detach().clone() for name, logit in self.logits.items()},
            "inner": self._inner.state_dict(),
            "drawn": self._drawn,
        }

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state."""
        for name, logit in self.logits.items():
            logit.copy_(state_dict["logits"][name])
        self._inner.load_state_dict(state_dict["inner"])
        self.param_groups = self._inner.param_groups
        self._drawn = state_dict["drawn"] - 1
        self._draw()

    @torch.no_grad()
    def _draw(self) -> None:
        for name, logit in self.logits.items():
            noise = generator(self._seed, "mask", name, self._drawn)
            drawn = torch.rand(logit.shape, generator=noise).to(logit.device) < logit.sigmoid()
            self._factors[name] = drawn.numel() / max(int(drawn.sum()), 1) if self._rescale else 1.0
            self._parameters[name].copy_(self._weights[name] * drawn * self._factors[name])
        self._drawn += 1
