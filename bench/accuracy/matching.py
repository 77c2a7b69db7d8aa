"""How much to remove, so that both sides end with the same MACs.

What is removed is turned up in small steps until the MACs reach the target. A step is an amount
for the whole network; where all layers take the same amount, many of them lose a channel at the
same step, so layers take the next amount one after the other. MACs fall along the steps, and the
two at which they cross the target are found by bisection; the nearer one is taken. Where that
misses the target by more than the tolerance, the amounts between the two are tried the same way: in
one ranking over a large network a step can be several channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from engine.calling import plain_execution

Result = TypeVar("Result")

LEVELS = 256
"""Amounts between nothing and everything."""
PARTS = 16
"""Amounts between one level and the next, where those are too far apart."""
TOLERANCE = 0.02
"""How far from the target MACs may be, as a share of it."""


@dataclass(frozen=True)
class Amount:
    """Shares of the channels to remove.

    Attributes:
        lower: of most layers, or of the whole network in a global ranking.
        higher: of the first `raised` layers.
        raised: how many layers take it.
    """

    lower: float
    higher: float
    raised: int


@dataclass(frozen=True)
class Matched(Generic[Result]):
    """What came nearest to the target, and its MACs."""

    result: Result
    macs: int


def amount_at(position: float, layers: int) -> Amount:
    """The amount at a step; `layers` steps lead from one level to the next."""
    if layers == 1:
        return Amount((position + 1) / LEVELS, (position + 1) / LEVELS, 0)
    level, raised = divmod(int(position), layers)
    return Amount((level + 1) / LEVELS, (level + 2) / LEVELS, raised)


def match(
    prune: Callable[[Amount], Result],
    macs: Callable[[Result], int],
    target: float,
    *,
    layers: int = 1,
) -> Matched[Result]:
    """The pruned network whose MACs are nearest to `target`.

    Args:
        prune: makes the network of an amount.
        macs: counts its multiply-accumulates.
        target: MACs to end with.
        layers: that can take the next amount one after the other; 1 for global rankings.
    """
    best: Matched[Result] | None = None

    def tried(position: float) -> int:
        nonlocal best
        result = prune(amount_at(position, layers))
        count = macs(result)
        if best is None or abs(count - target) < abs(best.macs - target):
            best = Matched(result, count)
        return count

    low, high = -1, (LEVELS - 2) * layers - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if tried(middle) > target else (low, middle)
    tried(high)
    if best is None:
        raise ValueError("no amount was tried")
    if layers == 1 and low >= 0 and abs(best.macs - target) > TOLERANCE * target:
        first, last = 0, PARTS
        while last - first > 1:
            part = (first + last) // 2
            over = tried(low + part / PARTS) > target
            first, last = (part, last) if over else (first, part)
    return best


def count_macs(module: Callable[[Tensor], Tensor], image: Tensor) -> int:
    """Multiply-accumulates of one image: half of torch's floating-point operations.

    One counter for modules and for TorchScript: torch counts what both dispatch.
    """
    with torch.no_grad(), plain_execution(), FlopCounterMode(display=False) as counter:
        module(image)
    return int(counter.get_total_flops()) // 2
