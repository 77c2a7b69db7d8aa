"""What a recipe may ask of a criterion, refused before anything runs."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from secateur.recipe import PruneStage, Recipe


def stage(**changes):
    return {"stage": "prune", "allocation": {"amount": 0.5}} | changes


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"criterion": "geometric_median", "granularity": "element"}, "has no neighbours"),
        ({"criterion": "bn_scale", "granularity": "element"}, "BatchNorm scales channels"),
        ({"criterion": "apoz", "granularity": "element"}, "activations belong to channels"),
        ({"criterion": "mean_activation", "granularity": "element"}, "activations belong"),
        ({"criterion": "taylor", "granularity": "layer"}, "does not judge whole layers; use"),
        ({"criterion": "taylor", "aggregate": "max"}, "`aggregate` must be `sum`"),
        ({"criterion": "apoz", "slices": "all"}, "`criterion: apoz` looks at none of them"),
        ({"criterion": "bn_scale", "slices": "all"}, "or use `l1_norm`"),
        ({"slices": "all", "granularity": "element"}, "granularity is `element`: leave `slices`"),
        ({"slices": "all", "granularity": "layer"}, "leave `slices` out"),
        ({"slices": "input"}, "'producing', 'reading' or 'all'"),
        ({"criterion": "l1_norm", "scoring": {}}, "`scoring` is of no use"),
        ({"criterion": "synflow", "scoring": {}}, "looks at no samples"),
        ({"criterion": "apoz", "scoring": {"target": "teacher"}}, "`scoring.target` is of no use"),
        ({"criterion": "movement", "granularity": "layer"}, "does not judge whole layers; use"),
        ({"criterion": "taylor", "scoring": {"epochs": 2}}, "`scoring.epochs` is of no use"),
        ({"criterion": "apoz", "scoring": {"lr": 0.1}}, "`scoring.lr` is of no use"),
        ({"criterion": "movement", "scoring": {"lr": 0}}, "greater than 0"),
        (
            {
                "criterion": "movement",
                "granularity": "element",
                "scoring": {"epochs": 2},
                "schedule": {"kind": "agp", "rounds": 2, "finetune": {"epochs": 3}},
            },
            "the run in which they are masked is what judges them",
        ),
        ({"criterion": "taylor", "scoring": {"samples": 0}}, "greater than or equal to 1"),
        ({"criterion": "taylor", "scoring": {"target": "student"}}, "'labels' or 'teacher'"),
    ],
)
def test_refused(changes, says):
    with pytest.raises(ValidationError, match=says):
        PruneStage.model_validate(stage(**changes))


@pytest.mark.parametrize(
    "criterion", ["apoz", "mean_activation", "wanda", "taylor", "snip", "movement"]
)
def test_criteria_of_data_need_a_dataset_and_name_their_field(criterion):
    recipe = Recipe.model_validate({"stages": [stage(), stage(criterion=criterion)]})
    assert recipe.needs_dataset() == "stages.1.criterion"
    labelled = criterion in {"taylor", "snip", "movement"}
    assert recipe.needs_targets() == ("stages.1.criterion" if labelled else None)


def test_a_teacher_needs_no_targets_and_what_follows_may():
    taught = stage(criterion="hessian", scoring={"target": "teacher"})
    assert Recipe.model_validate({"stages": [taught]}).needs_targets() is None
    trained = Recipe.model_validate({"stages": [taught, {"stage": "finetune"}]})
    assert trained.needs_dataset() == "stages.0.criterion"
    assert trained.needs_targets() == "stages.1"


@pytest.mark.parametrize("criterion", ["geometric_median", "bn_scale", "lamp", "synflow"])
def test_criteria_of_weights_need_no_dataset(criterion):
    assert Recipe.model_validate({"stages": [stage(criterion=criterion)]}).needs_dataset() is None


def test_scores_that_compare_between_layers_are_not_normalised_unless_asked():
    assert PruneStage.model_validate(stage(criterion="lamp")).normalize == "none"
    assert PruneStage.model_validate(stage(criterion="snip")).normalize == "none"
    assert PruneStage.model_validate(stage(criterion="apoz")).normalize == "mean"
    asked = stage(criterion="lamp", normalize="max")
    assert PruneStage.model_validate(asked).normalize == "max"
    again = PruneStage.model_validate(PruneStage.model_validate(asked).model_dump())
    assert again.normalize == "max"


@pytest.mark.parametrize("criterion", ["taylor", "hessian"])
def test_expansions_compare_single_weights_of_a_network_but_no_channels(criterion):
    def normalize(granularity):
        made = stage(criterion=criterion, granularity=granularity)
        return PruneStage.model_validate(made).normalize

    assert PruneStage.model_validate(stage(criterion=criterion)).normalize == "mean"
    assert normalize("head") == "mean"
    assert normalize("element") == "none"


@pytest.mark.parametrize("granularity", ["channel", "head"])
@pytest.mark.parametrize("slices", ["reading", "all"])
def test_what_reads_channels_and_heads_may_be_scored(granularity, slices):
    made = stage(criterion="hessian", granularity=granularity, slices=slices)
    assert PruneStage.model_validate(made).slices == slices
