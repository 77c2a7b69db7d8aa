from __future__ import annotations

import pytest
from pydantic import ValidationError
from secateur.recipe import PruneStage, Recipe


def stage(**fields):
    return {"stage": "prune", "granularity": "layer", "allocation": {"count": 1}} | fields


def test_layers_are_judged_by_their_effect_unless_said_otherwise():
    assert PruneStage.model_validate(stage()).criterion == "output_effect"
    assert PruneStage.model_validate(stage(criterion="l1_norm")).criterion == "l1_norm"
    assert PruneStage.model_validate(stage(granularity="channel")).criterion == "l1_norm"
    # A recipe with every default written out means the same.
    recipe = Recipe.model_validate({"stages": [stage()]})
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"granularity": "channel", "criterion": "output_effect"},
         "`criterion: output_effect` judges whole layers; granularity is `channel`"),
        ({"granularity": "element", "criterion": "block_influence"},
         "`criterion: block_influence` judges whole layers; granularity is `element`"),
        ({"round_to": 8}, "`round_to` rounds channel counts; granularity is `layer`"),
        ({"allocation": {"count": 1, "of": "channels"}},
         "`allocation.of` must be `layers` .* granularity `layer`; it is `channels`"),
        ({"granularity": "layers"}, "granularity\n"),
    ],
)  # fmt: skip
def test_what_does_not_fit_layers_is_refused_by_its_field(fields, words):
    with pytest.raises(ValidationError, match=words):
        PruneStage.model_validate(stage(**fields))
