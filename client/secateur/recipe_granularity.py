"""What granularity and allocation of a prune stage allow each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import PydanticCustomError

from secateur.recipe_allocation import Allocation
from secateur.recipe_criterion import Granularity
from secateur.recipe_target import target_fault

_MAGNITUDE = ("l1_norm", "l2_norm")


def without_default(schema: dict[str, Any]) -> None:
    """Takes the default out of a field's schema: leaving it out is a rule, not a value."""
    schema.pop("default", None)


def allocation_or_pattern(allocation: Any, stage: Mapping[str, Any]) -> Any:
    """The allocation as given, or the one that an n:m pattern amounts to.

    Args:
        allocation: as given, None where it was left out.
        stage: the fields before it.
    """
    if allocation is not None:
        return allocation
    if stage.get("granularity") != "n_m":
        # Of pydantic's own kind, by which the door finds the path of a field that is not there.
        raise PydanticCustomError(
            "missing",
            "Field required: say how much goes by `amount`, `count`, `threshold`, `quality`, "
            "`layers` or `target`",
        )
    kept, group = stage.get("n"), stage.get("m")
    if kept is None or group is None or kept >= group:
        # What `check_pattern` will say; an amount is needed to get there.
        return Allocation(amount=0.5)
    return Allocation(amount=_share(kept, group))


def check_pattern(
    granularity: Granularity, kept: int | None, group: int | None, allocation: Allocation
) -> None:
    """Refuse `n` and `m` without granularity `n_m`, and patterns that remove nothing."""
    if granularity != "n_m":
        if kept is not None or group is not None:
            raise ValueError(f"`n` and `m` need granularity `n_m`; it is `{granularity}`")
        return
    if kept is None or group is None:
        raise ValueError(
            "granularity `n_m` needs `n` (weights kept) and `m` (of how many), for example "
            "`n: 2, m: 4`"
        )
    if kept >= group:
        raise ValueError(f"`n: {kept}` of `m: {group}` keeps every weight; `n` must be below `m`")
    if allocation != Allocation(amount=_share(kept, group), of=allocation.of):
        raise ValueError(
            f"granularity `n_m` removes {group - kept} of every {group} weights; leave "
            "`allocation` out"
        )


def check_allocation(granularity: Granularity, criterion: str, allocation: Allocation) -> None:
    """Refuse ways to say how much that mean nothing for what is removed."""
    fault = target_fault(granularity, allocation.target)
    if fault is not None:
        raise ValueError(fault)
    if allocation.by_layer and granularity == "layer":
        raise ValueError(
            "granularity `layer` removes whole branches out of one ranking: give `amount`, `count` "
            "or `target`, without `layers`, `distribution`, `threshold` or `quality`"
        )
    if allocation.distribution == "sensitivity" and granularity not in ("channel", "head"):
        raise ValueError(
            "`distribution: sensitivity` scans layers by their channels or heads; granularity is "
            f"`{granularity}`"
        )
    if allocation.quality is None:
        return
    if granularity != "element":
        raise ValueError(
            "`quality` is a multiple of the standard deviation of weights and needs granularity "
            f"`element`; it is `{granularity}`. A `threshold` holds for scores of channels"
        )
    if criterion not in _MAGNITUDE:
        raise ValueError(
            f"`quality` compares magnitudes; `criterion: {criterion}` does not. Use l1_norm, or a "
            "`threshold`"
        )


def _share(kept: int, group: int) -> float:
    return (group - kept) / group
