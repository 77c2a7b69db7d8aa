"""Jobs that compare features of the pruned model with those of the upload."""

from __future__ import annotations

import pytest
import torch

from engine.errors import PatternMatchesNothing
from engine.pipeline import compress
from engine.pipeline.checkpoint import load_checkpoint
from engine.pipeline.report import fingerprint_of
from engine.pipeline.setup import prepare
from tests.engine.digits import Recorder
from tests.engine.pipeline.conftest import prune

FEATURES = [
    {"layer": "conv?", "weight": 0.5, "loss": "mse"},
    {"layer": "conv2", "weight": 2.0, "loss": "attention"},
    {"layer": "fc1", "loss": "cosine"},
]


LAST = 1 + 2 * 3 + 2
"""Checkpoints: the original; two rounds of prune, epoch and trained; epoch and trained."""


def recipe(features, **more):
    distillation = {"alpha": 0.5, "features": features} | more
    return {
        "seed": 3,
        "stages": [
            prune(
                criterion="random",
                schedule={
                    "kind": "iterative",
                    "rounds": 2,
                    "finetune": {"epochs": 1, "distillation": distillation},
                },
            ),
            {"stage": "finetune", "epochs": 1, "keep": "last", "distillation": distillation},
        ],
    }


def test_features_in_every_training_and_after_every_checkpoint(
    make_job, lenet, little_data, tmp_path
):
    kept = tmp_path / "kept"
    kept.mkdir()
    job = make_job(lenet, recipe(FEATURES), little_data)
    heard = Recorder(keep=kept, stop_at=LAST)
    with pytest.raises(KeyboardInterrupt):
        compress(job, heard)
    names = {name for name, *_ in heard.metrics if name.startswith("train/features")}
    assert names == {
        "train/features",
        "train/features/mse/conv1",
        "train/features/mse/conv2",
        "train/features/attention/conv2",
        "train/features/cosine/fc1",
    }
    losses = [value for name, value, *_ in heard.metrics if name == "train/features"]
    assert len(losses) == 3
    assert all(value > 0 for value in losses)
    # The surviving channels are in the checkpoint: what follows it compares the same ones.
    again = make_job(lenet, recipe(FEATURES), little_data, kept / "5.pt")
    begun, whole = state_of(again, kept / "5.pt"), state_of(job, job.workdir / "checkpoint.pt")
    left = begun.program.followed.kept["conv2"][1]
    assert len(left) == begun.program.attributes()["conv2.weight"].shape[0] < 50
    with pytest.raises(KeyboardInterrupt):
        compress(again, Recorder(stop_at=LAST - 5))
    resumed = state_of(again, again.workdir / "checkpoint.pt")
    other = whole.program.attributes()
    for name, tensor in resumed.program.attributes().items():
        assert torch.equal(tensor, other[name])
    assert [run.points for run in resumed.curves] == [run.points for run in whole.curves]


def state_of(job, checkpoint):
    return load_checkpoint(checkpoint, prepare(job).original, fingerprint=fingerprint_of(job))


def test_a_pattern_that_matches_nothing_is_refused_before_any_work(make_job, lenet, little_data):
    heard = Recorder()
    with pytest.raises(PatternMatchesNothing) as refused:
        compress(make_job(lenet, recipe([{"layer": "layer9.*"}]), little_data), heard)
    assert refused.value.where == "recipe.stages.0.schedule.finetune.distillation.features.0.layer"
    assert "conv1" in refused.value.hint
    assert heard.checkpoints == 0
