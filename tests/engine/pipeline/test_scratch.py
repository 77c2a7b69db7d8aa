"""Jobs that report what the pruned architecture reaches from new random weights."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from secateur.recipe import Baseline, Recipe

from engine.lottery.baselines import epochs_of
from engine.lottery.rewinding import snapshot
from engine.pipeline import compress
from engine.pipeline.checkpoint import load_checkpoint
from engine.pipeline.report import fingerprint_of
from engine.torchscript.program import Program
from tests.engine.digits import Recorder
from tests.engine.pipeline.conftest import prune

BOTH = [{"kind": "scratch_e"}, {"kind": "scratch_b"}]
FINETUNE = {"stage": "finetune", "epochs": 6, "optimizer": {"lr": 0.05}}
RECIPE = {"stages": [prune(), FINETUNE], "baselines": BOTH, "seed": 5}


def test_epochs_by_hand():
    e, b = (Baseline.model_validate(kind) for kind in BOTH)
    assert epochs_of(e, 10, macs_before=300, macs_after=100) == 10
    assert epochs_of(b, 10, macs_before=300, macs_after=100) == 30
    assert epochs_of(b, 10, macs_before=300, macs_after=299) == 11
    assert epochs_of(b, 10, macs_before=100, macs_after=100) == 10
    assert epochs_of(b, 10, macs_before=0, macs_after=0) == 10


@pytest.mark.exhaustive
def test_controls_stand_beside_the_result(run, lenet, data):
    plain = run(lenet, RECIPE | {"baselines": []}, data)
    done = run(lenet, RECIPE, data)
    report = done.result.report
    scratch_e, scratch_b = report.baselines
    assert (scratch_e.kind, scratch_b.kind) == ("scratch_e", "scratch_b")
    assert scratch_e.epochs == 6
    assert scratch_b.epochs == -(-6 * report.before.macs // report.after.macs) > 6
    assert [
        len([m for m in done.heard.metrics if m[0] == "lr" and m[3] == label])
        for label in ("baseline scratch_e", "baseline scratch_b")
    ] == [6, scratch_b.epochs]
    # Nine in ten wrong is chance.
    assert all(item.accuracy.top1 > 0.3 for item in report.baselines)
    assert all(item.drawn_by_distribution == [] for item in report.baselines)
    # The result is what it is without controls.
    assert [stage.label for stage in report.stages] == ["prune", "finetune"]
    assert report.after.accuracy == plain.result.report.after.accuracy
    assert report.provenance.result_sha256 == plain.result.report.provenance.result_sha256


def test_masks_hold_in_controls(make_job, lenet, little_data, tmp_path):
    recipe = {
        "stages": [prune(granularity="element", allocation={"amount": 0.9})],
        "baselines": [{"kind": "scratch_b", "training": {"epochs": 2, "keep": "last"}}],
    }
    job = make_job(lenet, recipe, little_data)
    with pytest.raises(KeyboardInterrupt):  # after the control's second epoch
        compress(job, Recorder(stop_at=4))
    state = load_checkpoint(
        job.workdir / "checkpoint.pt", Program.load(lenet), fingerprint=fingerprint_of(job)
    )
    assert state.training is not None
    assert state.training.epoch == 2
    assert state.masks
    for name, mask in state.masks.items():
        assert bool((state.training.tensors[name][~mask] == 0).all())
    result = snapshot(state.program)
    assert any(not torch.equal(result[name], state.training.tensors[name]) for name in state.masks)
    done = compress(make_job(lenet, recipe, little_data), Recorder())
    # Masks leave the work as it was: the same computation is the same number of epochs.
    assert done.report.baselines[0].epochs == 2


def test_every_checkpoint_resumes_to_the_same_controls(
    make_job, lenet, little_data, tmp_path, points
):
    recipe = RECIPE | {"stages": [prune(), FINETUNE | {"epochs": 1}]}
    kept = tmp_path / "kept"
    kept.mkdir()
    heard = Recorder(keep=kept)
    expected = compress(make_job(lenet, recipe, little_data), heard).report.baselines
    for number in points(range(1, heard.checkpoints + 1, 3)):
        again = make_job(lenet, recipe, little_data, kept / f"{number}.pt")
        assert compress(again, Recorder()).report.baselines == expected


def test_a_control_must_know_how_to_train():
    with pytest.raises(ValidationError, match=r"`baselines\.0` has no `training`"):
        Recipe.model_validate({"stages": [prune()], "baselines": BOTH})
    alone = Recipe.model_validate(
        {"stages": [prune()], "baselines": [{"kind": "scratch_e", "training": {}}]}
    )
    assert alone.needs_dataset() == "baselines.0"


def test_controls_train_as_long_as_the_training_rules_did(run, lenet, little_data):
    training = {"epochs": 2, "batch_size": 50, "freeze": ["fc3"]}
    rigl = prune(
        granularity="element",
        schedule={"kind": "rigl", "every_steps": 1, "finetune": training},
    )
    replayed = prune(
        granularity="element",
        allocation={"amount": 0.7},
        schedule={"kind": "lr_rewind", "rounds": 2, "rewind_to_epoch": 1, "finetune": training},
    )
    recipe = {"stages": [rigl, replayed], "baselines": [{"kind": "scratch_e"}]}
    done = run(lenet, recipe, little_data)
    (control,) = done.result.report.baselines
    # 2 of rigl, and twice the last of 2.
    assert control.epochs == 4
    assert [label for *_, label in done.heard.metrics].count("baseline scratch_e") > 0
