from __future__ import annotations

import dataclasses
from math import nan

import pytest
import torch

from engine.errors import TrainingDiverged
from engine.training.divergence import LossWatch, check_weights
from engine.training.evaluation import evaluate
from engine.training.finetune import train
from tests.engine.training.test_epoch import Every
from tests.engine.training.test_finetune import make_program, options, run_of, same, splits, weights
from tests.engine.training.test_relief import Heard


def seen(losses, *, settled=True):
    """After which epoch (from 1) the watch ends a run with these losses."""
    watch = LossWatch()
    for epoch, loss in enumerate(losses):
        try:
            watch.see(loss, run_of(), epoch, settled=settled)
        except TrainingDiverged:
            return epoch + 1
    return None


def test_two_epochs_far_above_the_first_end_a_run():
    assert seen([2.0, 21.0, 19.0, 21.0, 21.0]) == 5
    assert seen([2.0, 19.9, 19.9, 19.9]) is None
    # From almost no loss ten is the limit, not ten times almost nothing.
    assert seen([0.01, 0.5, 9.9, 9.9]) is None
    assert seen([0.01, 10.1, 10.1]) == 3
    assert seen([0.01, 50.0, 50.0], settled=False) is None


def test_a_weight_that_is_no_number_is_named():
    held = {"a": torch.ones(2, requires_grad=True), "b": torch.tensor([1.0, nan])}
    check_weights(held, run_of(), 0)  # b is not trained: an infinite constant is nobody's fault
    held["b"].requires_grad_()
    with pytest.raises(TrainingDiverged, match="`b` is no longer finite after epoch 1 of 2"):
        check_weights(held, run_of(), 0)


@pytest.mark.parametrize("keep", ["best", "last"])
def test_what_was_good_is_kept_and_said(tmp_path, monkeypatch, keep):
    program = make_program(tmp_path / "m.pt")
    monkeypatch.setattr(
        "engine.training.step.learning_rate",
        lambda _options, step, _steps: 0.05 if step < 16 else 1e30,
    )
    sound = train(program, run_of(options(epochs=5, keep=keep)), short := Heard())
    assert len(short.values("train/loss")) == 2  # the third did not end
    assert sound.stopped.startswith("in epoch 3 of 5: the loss became")
    assert sound.stopped.endswith("; the weights are those of epoch 2")
    assert sound.remarks == (f"training diverged {sound.stopped}",) == tuple(short.remarks)
    accuracy = evaluate(sound.program, splits()[1], device="cpu").accuracy.top1
    assert accuracy == short.values("validation/accuracy")[1]
    # A run that is taken up within the epoch in which it runs away ends with the same bits.
    run = dataclasses.replace(run_of(options(epochs=5, keep=keep)), pace=Every(1))
    train(program, run, stopping := Heard())
    late = [one for one in stopping.within if one.epoch == 2]
    assert late
    for state in late[:2]:
        resumed = train(program, run_of(options(epochs=5, keep=keep)), Heard(), resume=state)
        assert same(weights(sound.program), weights(resumed.program))
        assert resumed.stopped == sound.stopped


def test_without_a_good_epoch_the_run_fails(tmp_path, monkeypatch):
    program = make_program(tmp_path / "m.pt")
    monkeypatch.setattr("engine.training.step.learning_rate", lambda *_: 1e30)
    with pytest.raises(TrainingDiverged, match="in epoch 1 of 5"):
        train(program, run_of(options(epochs=5)), Heard())
