"""One loop that trains every network here: dense, ours after pruning, the peer's after pruning.

AdamW, cosine learning rate without warm-up, batches of 64 whose order the seed alone decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.accuracy.data import Part

BATCH = 64
RATE = 2e-3
DECAY = 5e-4

Forward = Callable[[Tensor], Tensor]


def train(
    forward: Forward, parameters: Iterable[Tensor], part: Part, *, epochs: int, seed: int
) -> None:
    """Train in place; `forward` is in training mode."""
    optimizer = torch.optim.AdamW(list(parameters), lr=RATE, weight_decay=DECAY)
    generator = torch.Generator().manual_seed(seed)
    batches = math.ceil(len(part.classes) / BATCH)
    for step in range(epochs * batches):
        if step % batches == 0:
            order = torch.randperm(len(part.classes), generator=generator)
        rows = order[step % batches * BATCH :][:BATCH]
        for group in optimizer.param_groups:
            group["lr"] = RATE / 2 * (1 + math.cos(math.pi * step / (epochs * batches)))
        loss = torch.nn.functional.cross_entropy(forward(part.images[rows]), part.classes[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@dataclass(frozen=True)
class Judged:
    """Share of right answers, and mean cross-entropy in nats."""

    accuracy: float
    loss: float


@torch.no_grad()
def judged(forward: Forward, part: Part) -> Judged:
    """How well the images of a part are classified; `forward` is in evaluation mode."""
    logits = forward(part.images)
    right = (logits.argmax(1) == part.classes).double().mean()
    loss = torch.nn.functional.cross_entropy(logits, part.classes)
    return Judged(float(right), float(loss))
