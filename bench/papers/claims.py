"""The claims that are tried, each a module of its own with a `CLAIM`."""

from __future__ import annotations

from importlib import import_module

from bench.papers.claim import Claim

MODULES: tuple[str, ...] = (
    "han",
    "lottery",
    "supermask",
    "rethinking",
    "slimming",
    "channel_criteria",
)
"""In the order of the page."""


def claims() -> dict[str, Claim]:
    """All claims by name.

    Raises:
        ValueError: a claim is not named for its module.
    """
    found = {name: import_module(f"bench.papers.{name}").CLAIM for name in MODULES}
    for name, claim in found.items():
        if claim.name != name:
            raise ValueError(f"bench/papers/{name}.py has a claim named `{claim.name}`")
    return found
