from __future__ import annotations

import dataclasses

import pytest
from pydantic import ValidationError
from secateur.recipe import Baseline, EarlyStopping, Recipe
from secateur.report import Accuracy

from engine.training.evaluation import Evaluation, evaluate
from engine.training.finetune import train
from engine.training.movement import MovementRecord
from engine.training.stopping import Patience
from tests.engine.training.test_finetune import (
    Observer,
    make_program,
    options,
    run_of,
    same,
    splits,
    weights,
)


def ends_at(values, **settings):
    """The epoch (from 1) after which a run ends, by values of what is watched; or None."""
    patience = Patience(EarlyStopping(**settings))
    for epoch, value in enumerate(values):
        top1, loss = (0.5, value) if settings.get("metric") == "loss" else (value, 1.0)
        patience.see(Evaluation(loss, Accuracy(correct=0, total=1, top1=top1)), epoch)
        if patience.exhausted:
            return epoch + 1
    return None


def test_patience_by_hand():
    values = [0.5, 0.7, 0.6, 0.7, 0.71, 0.65, 0.7, 0.71]
    assert ends_at(values, patience=1) == 3
    assert ends_at(values, patience=2) == 4  # 0.7 again is no gain
    assert ends_at(values, patience=3) == 8  # 0.71 is
    assert ends_at(values, patience=4) is None
    # A gain of 0.01 is not above 0.05: epochs 3, 4 and 5 wait.
    assert ends_at(values, patience=3, min_delta=0.05) == 5
    # Small gains add up to one: 0.5, then 0.54 and 0.58 against 0.5.
    assert ends_at([0.5, 0.54, 0.58, 0.58], patience=2, min_delta=0.05) is None
    # A loss must fall.
    assert ends_at(values, patience=2, metric="loss") == 3
    assert ends_at([1.0, 0.8, 0.79, 0.7], patience=2, metric="loss", min_delta=0.05) is None
    assert ends_at([1.0, 0.8, 0.79, 0.76], patience=2, metric="loss", min_delta=0.05) == 4


# The first epochs at these rates are better than those that follow.
WILD = {"epochs": 9, "lr_schedule": "constant", "optimizer": {"lr": 1.0, "momentum": 0.9}}


@pytest.mark.parametrize("keep", ["best", "last"])
@pytest.mark.parametrize("metric", ["accuracy", "loss"])
def test_a_run_ends_where_its_values_say(tmp_path, keep, metric):
    program = make_program(tmp_path / "m.pt")
    whole = Observer()
    train(program, run_of(options(**WILD)), whole)
    end = ends_at(whole.values(f"validation/{metric}"), patience=2, metric=metric)
    assert end is not None
    assert end < 9
    stopping = {"patience": 2, "metric": metric}
    observer = Observer()
    got = train(program, run_of(options(**WILD, keep=keep, early_stopping=stopping)), observer)
    assert observer.values("validation/loss") == whole.values("validation/loss")[:end]
    assert got.stopped is not None
    assert got.stopped.startswith(f"after epoch {end} of 9: validation {metric} did not")
    assert f"in epoch {end - 2}" in got.stopped
    accuracies = observer.values("validation/accuracy")
    found = evaluate(got.program, splits()[1], device="cpu").accuracy.top1
    assert found == (max(accuracies) if keep == "best" else accuracies[-1])
    # Resumed anywhere, after the last epoch too, it ends alike.
    assert [state.epoch for state in observer.states] == list(range(1, end + 1))
    for state in observer.states:
        run = run_of(options(**WILD, keep=keep, early_stopping=stopping))
        heard = Observer()
        resumed = train(program, run, heard, resume=state)
        assert same(weights(resumed.program), weights(got.program))
        assert resumed.stopped == got.stopped
        assert len(heard.states) == end - state.epoch


def test_a_run_that_goes_to_its_end_did_not_stop(tmp_path):
    program = make_program(tmp_path / "m.pt")
    observer = Observer()
    train(program, run_of(options(**WILD)), observer)
    end = ends_at(observer.values("validation/accuracy"), patience=2)
    settings = options(**(WILD | {"epochs": end, "early_stopping": {"patience": 2}}))
    assert train(program, run_of(settings), Observer()).stopped is None


def test_epochs_that_are_no_candidates_do_not_count(tmp_path):
    class Late(MovementRecord):
        def settled(self, step, per_epoch):
            return step > 6 * per_epoch

    program = make_program(tmp_path / "m.pt")
    settings = options(**WILD, early_stopping={"patience": 1, "metric": "loss"})
    observer, waiting, averaging = Observer(), Observer(), Observer()
    train(program, run_of(settings), observer)
    assert len(observer.states) < 6
    train(program, dataclasses.replace(run_of(settings), sparsity=Late()), waiting)
    assert len(waiting.states) > 7
    ema = settings.model_copy(update={"ema": options(epochs=9, ema={"from_epoch": 6}).ema})
    train(program, run_of(ema), averaging)
    assert len(averaging.states) > 7


def test_needs_a_validation_split():
    stopping = {"early_stopping": {}}
    prune = {"stage": "prune", "allocation": {"amount": 0.5}}
    finetune = {"stage": "finetune", **stopping}
    rounds = prune | {"schedule": {"kind": "iterative", "finetune": stopping}}
    assert Recipe.model_validate({"stages": [prune]}).needs_validation() is None
    plain = Recipe.model_validate({"stages": [prune, {"stage": "finetune"}]})
    assert plain.needs_validation() is None
    after = Recipe.model_validate({"stages": [prune, finetune]})
    assert after.needs_validation() == "stages.1.early_stopping"
    between = Recipe.model_validate({"stages": [rounds]})
    assert between.needs_validation() == "stages.0.schedule.finetune.early_stopping"


def test_bad_values():
    for bad in ({"patience": 0}, {"min_delta": -0.1}, {"min_delta": 1.0}, {"metric": "f1"}):
        with pytest.raises(ValidationError):
            options(early_stopping=bad)
    with pytest.raises(ValidationError, match=r"`training.early_stopping` would make the control"):
        Baseline.model_validate({"kind": "scratch_e", "training": {"early_stopping": {}}})
