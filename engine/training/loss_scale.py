"""Dynamic loss scaling: gradients of float16 kept within its range.

The smallest number of float16 is 6e-8, and many gradients are smaller: on their way back through a
network that computes in float16 they become zero. So the loss is multiplied by a factor s before
the way back, and the gradients, which are float32 at the weights, are divided by it afterwards:

    g = (1 / s) d(s L)/dw = dL/dw

(Micikevicius et al. 2018, "Mixed Precision Training", ICLR, section 3.2). A factor that is too
large shows in gradients that are infinite or NaN. Such a step is left out and s is halved; after
2,000 steps in a row that were finite it is doubled. It starts at 65,536. Factors are powers of two,
so scaling rounds nothing.

The rule and its numbers are those of `torch.amp.GradScaler`. That one tells of a bad step when the
optimiser was to take it; here masks that change while training, penalties and averages must know
before, and what the optimiser holds need not be the parameters of the network (learned masks).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

START = 65_536.0
_GROWTH_INTERVAL = 2_000


class LossScale:
    """The factor of one run.

    Attributes:
        value: that the loss is multiplied by.
        skipped: steps whose gradients were not finite, over the whole run.
    """

    def __init__(self) -> None:
        self.value = START
        self.skipped = 0
        self._finite_steps = 0

    @torch.no_grad()
    def unscale(self, parameters: Iterable[Tensor]) -> bool:
        """Divide the gradients in place, once a step; tells whether all of them are finite.

        Where one is not, its infinities and NaN become zero: rules that rank gradients see none.
        The factor is that of the next step from here on. Waits for the device.
        """
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        finite = True
        if gradients:
            torch._foreach_mul_(gradients, 1 / self.value)
            norms = torch.stack(torch._foreach_norm(gradients, ord=torch.inf))
            finite = bool(norms.isfinite().all())
        if not finite:
            for gradient in gradients:
                gradient.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
        self._follow(finite)
        return finite

    def _follow(self, finite: bool) -> None:
        if not finite:
            self.value /= 2
            self.skipped += 1
            self._finite_steps = 0
            return
        self._finite_steps += 1
        if self._finite_steps == _GROWTH_INTERVAL:
            self.value *= 2
            self._finite_steps = 0

    def memory(self) -> dict[str, Any]:
        """What a resumed run must be told."""
        return {"scale": self.value, "finite": self._finite_steps, "skipped": self.skipped}

    def recall(self, memory: dict[str, Any]) -> None:
        """Go on from there."""
        self.value, self._finite_steps = memory["scale"], memory["finite"]
        self.skipped = memory["skipped"]
