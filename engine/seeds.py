"""Seeds for every place that draws random numbers, derived from the recipe's one seed.

Each draw names what it is for (`derive(seed, "shuffle", stage, epoch)`), so it depends neither on
what ran before it nor on the order of layers. A resumed job therefore needs no saved generator
state to draw what the undisturbed one drew.
"""

from __future__ import annotations

import hashlib

import torch


def derive(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose; different purposes give independent seeds."""
    text = "/".join([str(seed), *(str(part) for part in purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator seeded for one purpose."""
    return torch.Generator().manual_seed(derive(seed, *purpose))
