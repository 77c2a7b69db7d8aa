"""A recalibration as a step of a job."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from engine.errors import DatasetInvalid, TrainingRuleUnmet
from engine.pipeline import compress
from engine.torchscript.program import Program
from tests.engine.digits import Recorder, digits, save_scripted
from tests.engine.pipeline.conftest import prune
from tests.engine.training.test_finetune import Small

STAGES = [prune(criterion="random"), {"stage": "recalibrate", "samples": 128}]


@pytest.fixture(scope="module")
def normed(tmp_path_factory):
    torch.manual_seed(0)
    return save_scripted(Small().eval(), tmp_path_factory.mktemp("normed") / "m.pt")


@pytest.fixture(scope="module")
def inputs_alone(tmp_path_factory):
    path = tmp_path_factory.mktemp("inputs") / "digits.safetensors"
    save_file({"train/inputs/0": digits()["train/inputs/0"][:200].clone()}, path)
    return path


def test_it_follows_pruning_is_measured_and_reported(run, normed, little_data):
    done = run(normed, {"stages": STAGES}, little_data)
    pruned, after = done.result.report.stages
    assert (after.stage, after.state, after.label, after.removed) == (
        "recalibrate",
        "recalibrated",
        "recalibrate",
        0,
    )
    assert after.parameters == pruned.parameters
    assert after.loss != pruned.loss
    assert done.result.report.after.loss == after.loss
    assert done.result.report.curve[0].retrained is None
    assert (2, 2, "batches") in done.heard.steps
    result = Program.load(done.folder / "compact.pt").attributes()
    assert not torch.equal(result["norm.running_var"], torch.ones_like(result["norm.running_var"]))


def test_it_needs_inputs_and_no_labels(run, make_job, normed, inputs_alone):
    done = run(normed, {"stages": STAGES}, inputs_alone)
    assert done.result.report.stages[-1].state == "recalibrated"
    with pytest.raises(DatasetInvalid) as caught:
        compress(
            make_job(normed, {"inputs": [{"shape": [2, 1, 8, 8]}], "stages": STAGES}), Recorder()
        )
    assert caught.value.where == "recipe.stages.1"


def test_a_resumed_job_gives_the_same_bits(make_job, normed, little_data, tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    job = make_job(normed, {"stages": STAGES}, little_data)
    compress(job, Recorder(keep=kept))
    again = make_job(normed, {"stages": STAGES}, little_data, kept / "2.pt")
    compress(again, Recorder())
    one, other = (Program.load(one.workdir / "compact.pt").attributes() for one in (job, again))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_model_without_batch_norm_is_refused_before_any_work(make_job, little_data, tmp_path):
    bare = save_scripted(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval(), tmp_path / "m.pt")
    heard = Recorder()
    with pytest.raises(TrainingRuleUnmet, match="no BatchNorm") as caught:
        compress(make_job(bare, {"stages": STAGES}, little_data), heard)
    assert caught.value.where == "recipe.stages.1"
    assert heard.started == []
