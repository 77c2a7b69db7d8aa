"""A range test finds a rate that trains, says how, and says when there is none."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from pydantic import ValidationError
from secateur.recipe import Recipe
from torch import Tensor, nn

from engine.errors import TrainingRuleUnmet
from engine.training.finetune import finetune, train
from engine.training.lr_finder import _chosen, find_rate
from tests.engine.training.test_finetune import (
    Observer,
    make_program,
    options,
    run_of,
    same,
    splits,
    weights,
)

AUTO = {"lr": "auto"}


def auto(**changes):
    return options(optimizer=AUTO | changes.pop("optimizer", {}), batch_size=64, **changes)


def test_a_tenth_of_the_rate_at_the_smallest_loss_by_hand():
    run = run_of(auto())
    found = _chosen([0.1, 0.2, 0.4, 0.8], [2.0, 1.5, 1.0, 3.0], run)
    assert found.chosen == pytest.approx(0.04)
    negative = _chosen([0.1, 0.2, 0.4], [-1.0, -3.0, -2.0], run)
    assert negative.chosen == pytest.approx(0.02)
    for flat in ([2.0, 1.99, 3.0], [2.0], [], [-1.0, -1.001]):
        with pytest.raises(TrainingRuleUnmet, match="does not fall") as caught:
            _chosen([0.1, 0.2, 0.3][: len(flat)], flat, run)
        assert caught.value.where == "recipe.stages.0.optimizer.lr"


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_the_rate_trains_and_the_program_given_is_untouched(tmp_path, kind):
    program = make_program(tmp_path / "m.pt")
    before = weights(program)
    run = run_of(auto(epochs=2, optimizer={"kind": kind}))
    found = find_rate(program, run)
    assert same(before, weights(program))
    assert len(found.rates) == len(found.losses) <= 100
    factors = {round(b / a, 9) for a, b in zip(found.rates, found.rates[1:], strict=False)}
    assert len(factors) == 1
    assert found.chosen == found.rates[found.losses.index(min(found.losses))] / 10
    assert find_rate(program, run) == found  # by the seed alone
    observer = Observer()
    trained = train(program, run, observer)
    losses = observer.values("train/loss")
    assert losses[-1] < 0.9 * found.losses[0]
    assert trained.recording.search == found
    assert trained.recording.curves(stage_index=0, label="f").rate_search == found
    assert observer.values("lr_search/loss") == found.losses
    assert observer.values("lr_search/chosen") == [found.chosen]
    assert observer.values("lr")[0] == found.chosen


def test_the_run_is_the_one_that_the_rate_in_the_recipe_gives(tmp_path):
    program = make_program(tmp_path / "m.pt")
    masks = {"linear.weight": torch.rand(10, 216, generator=torch.Generator().manual_seed(0)) > 0.8}
    searched, observer = run_of(auto(clip_norm=1.0), masks), Observer()
    one = weights(finetune(program, searched, observer))
    rate = observer.values("lr_search/chosen")[0]
    given = run_of(options(optimizer={"lr": rate}, batch_size=64, clip_norm=1.0), masks)
    assert same(one, weights(finetune(program, given, Observer())))
    # A resumed run does not look again.
    heard = Observer()
    resumed = weights(finetune(program, searched, heard, resume=observer.states[0]))
    assert same(one, resumed)
    assert heard.values("lr_search/lr") == []


def test_in_mixed_precision(tmp_path):
    program = make_program(tmp_path / "m.pt")
    found = find_rate(program, run_of(auto(precision="fp16")))
    assert 1e-4 < found.chosen < 1


class Constant(nn.Module):
    """Nothing it learns changes what it says."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1)) * 0.0


def test_a_loss_that_never_falls_is_an_error(tmp_path):
    program = make_program(tmp_path / "m.pt", Constant())
    train_split, _ = splits()
    run = dataclasses.replace(run_of(auto()), train=train_split)
    with pytest.raises(TrainingRuleUnmet, match="found no learning rate") as caught:
        finetune(program, run, Observer())
    assert caught.value.where == "recipe.stages.0.optimizer.lr"


PRUNE = {"stage": "prune", "allocation": {"amount": 0.5}}


@pytest.mark.parametrize(
    "schedule",
    [
        {"kind": "lr_rewind", "finetune": {"optimizer": AUTO}},
        {"kind": "imp", "training": {"optimizer": AUTO}},
        {"kind": "imp_rewind", "rewind_step": 1, "training": {"optimizer": AUTO}},
        {"kind": "supermask", "training": {"optimizer": AUTO}},
    ],
)
def test_schedules_whose_trainings_share_a_rate_refuse_it(schedule):
    with pytest.raises(ValidationError, match=r"optimizer.lr: auto` is looked for anew"):
        Recipe.model_validate({"stages": [PRUNE | {"schedule": schedule}]})
    iterative = {"kind": "iterative", "finetune": {"optimizer": AUTO}}
    Recipe.model_validate({"stages": [PRUNE | {"schedule": iterative}]})


@pytest.mark.parametrize("wrong", ["fast", 0, 11, None])
def test_other_words_are_refused(wrong):
    with pytest.raises(ValidationError, match="lr"):
        options(optimizer={"lr": wrong})
