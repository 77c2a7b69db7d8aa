"""Which recipes a random control can stand beside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from secateur.recipe_lottery import TICKETS, Baseline, Supermask

_PHYSICAL = ("channel", "head", "layer")


def random_control_fault(baselines: Sequence[Baseline], stages: Sequence[Any]) -> str | None:
    """Why chance cannot take the same counts out of every layer, or None.

    Args:
        baselines: of the recipe.
        stages: of the recipe, of any kind.
    """
    index = next((i for i, item in enumerate(baselines) if item.kind == "random_pruning"), None)
    if index is None:
        return None
    prunes = [(number, stage) for number, stage in enumerate(stages) if stage.stage == "prune"]
    field = f"`baselines.{index}.kind: random_pruning`"
    for number, stage in prunes:
        if isinstance(stage.schedule, Supermask) and stage.schedule.removed != "zero":
            return (
                f"{field} masks as many weights as the result, and `stages.{number}.schedule."
                f"removed: {stage.schedule.removed}` masks none; use `removed: zero`"
            )
    tickets = [number for number, stage in prunes if stage.schedule.kind in TICKETS]
    smaller = [
        number for number, stage in prunes if stage.granularity in _PHYSICAL or stage.remove_dead
    ]
    if tickets and smaller:
        return (
            f"{field} starts from the initial weights that `stages.{tickets[0]}` goes back to, and "
            f"`stages.{smaller[0]}` makes the model smaller: leave one of the three out"
        )
    layers = [number for number, stage in prunes if stage.granularity == "layer"]
    masked = [number for number, stage in prunes if stage.granularity in ("element", "n_m")]
    if layers and masked:
        return (
            f"{field} takes other layers than `stages.{layers[0]}`, so that the masks of "
            f"`stages.{masked[0]}` have no counterpart in them: leave one of the three out"
        )
    return None
