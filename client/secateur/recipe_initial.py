"""Which recipes can use initial weights that come with the job."""

from __future__ import annotations

from secateur.recipe import PruneStage, Recipe
from secateur.recipe_lottery import TICKETS


def initial_fault(recipe: Recipe) -> tuple[str, str] | None:
    """Why initial weights of the upload are of no use to a recipe: path of a field and message.

    None where a stage goes back to them and finds the model in the shapes they have.
    """
    smaller: str | None = None
    used = False
    for index, stage in enumerate(recipe.stages):
        if not isinstance(stage, PruneStage):
            continue
        if stage.schedule.kind in TICKETS:
            if smaller is not None:
                return (
                    f"stages.{index}.schedule",
                    f"`schedule.kind: {stage.schedule.kind}` goes back to initial weights in the "
                    f"shapes of the upload, and `{smaller}` has made the model smaller by then: "
                    "put this stage first, or give no initial weights; the job then keeps its own",
                )
            used = True
        elif stage.granularity in ("channel", "head", "layer"):
            smaller = smaller or f"stages.{index}"
    if used:
        return None
    return (
        "stages",
        "no stage goes back to initial weights; only the schedules "
        f"{', '.join(f'`{kind}`' for kind in TICKETS)} do. Use one of them, or give no initial "
        "weights",
    )
