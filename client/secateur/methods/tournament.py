"""How the criterion itself is decided."""

from __future__ import annotations

from secateur.methods.schema import schema_of
from secateur.recipe import PruneStage
from secateur.resources import Method

TOURNAMENTS: list[Method] = [
    Method(
        name="tournament",
        kind="tournament",
        summary=(
            "Which criterion suits this model on this data: each prunes it to the same MACs "
            "(single weights: to equally many that are not masked), recovers for a short while, "
            "and is judged on the validation split; the best one judges in the stage. Criteria "
            "that the model or the dataset rules out are listed with the reason. Use it when "
            "nothing is known about the model, and keep a test split elsewhere: the winner's "
            "accuracy is the highest of several, so a little too good."
        ),
        formula="c* = argmax over c of (accuracy(recover(f_c)), -loss), MACs(f_c) = T for all c",
        source="Secateur; matched cost as Blalock et al. 2020 (MLSys) ask of comparisons",
        data="training",
        cost="one analysis; for n criteria n scorings, removals, recoveries and evaluations, one "
        "after another in the memory of one",
        schema=schema_of(PruneStage, ["tournament"], criterion="tournament"),
    )
]
