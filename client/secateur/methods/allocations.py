"""How much goes, and where."""

from __future__ import annotations

from secateur.methods.schema import NO_TIME, schema_of
from secateur.recipe import Allocation
from secateur.resources import Method

ALLOCATIONS: list[Method] = [
    Method(
        name="local",
        kind="allocation",
        summary="The same amount out of every layer, each ranked by itself.",
        formula="in every group g: remove the lowest amount * |g| of its scores",
        source="Li et al. 2017",
        data="none",
        cost=NO_TIME,
        schema=schema_of(Allocation, ["amount", "count"], scope="local"),
    ),
    Method(
        name="global",
        kind="allocation",
        summary=(
            "One ranking over the whole network; layers lose unequally. At least one channel of "
            "every layer survives. Wants scores that compare between layers: see `normalize`."
        ),
        formula="remove the lowest amount * sum |g| of all scores together",
        source="Blalock et al. 2020",
        data="none",
        cost=NO_TIME,
        schema=schema_of(Allocation, ["amount", "count"], scope="global"),
    ),
    Method(
        name="amount",
        kind="allocation",
        summary="How much goes, as a fraction of the prunable channels (or weights).",
        formula="0 < amount < 1",
        source="torch.nn.utils.prune (float `amount`)",
        data="none",
        cost=NO_TIME,
        schema=schema_of(Allocation, ["amount"]),
    ),
    Method(
        name="count",
        kind="allocation",
        summary="How much goes, as a number: per layer when local, in total when global.",
        formula="count >= 1",
        source="torch.nn.utils.prune (integer `amount`)",
        data="none",
        cost=NO_TIME,
        schema=schema_of(Allocation, ["count"]),
    ),
]
