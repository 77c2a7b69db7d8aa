"""A job stopped after any checkpoint and resumed gives the bits of the undisturbed one."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from engine.pipeline import compress
from engine.pipeline.checkpoint import CheckpointUnusable, load_checkpoint
from engine.pipeline.report import fingerprint_of
from engine.torchscript.program import Program
from tests.engine.digits import Recorder
from tests.engine.pipeline.conftest import prune

RECIPE = {
    "seed": 11,
    "stages": [
        prune(
            criterion="random",
            schedule={"kind": "iterative", "rounds": 2, "finetune": {"epochs": 2}},
        ),
        prune(granularity="element", allocation={"scope": "global", "amount": 0.3}),
        {
            "stage": "finetune",
            "epochs": 2,
            "keep": "last",
            "optimizer": {"kind": "adamw", "lr": 0.002},
        },
    ],
}


def tensors_of(path, job):
    original = Program.load(job.model)
    state = load_checkpoint(path, original, fingerprint=fingerprint_of(job))
    return state, {name: tensor.detach() for name, tensor in state.program.attributes().items()}


def test_every_checkpoint(make_job, lenet, little_data, tmp_path, points):
    kept = tmp_path / "kept"
    kept.mkdir()
    job = make_job(lenet, RECIPE, little_data)
    heard = Recorder(keep=kept)
    result = compress(job, heard)
    # the original; 2 x (prune, 2 epochs, fine-tuned); masks; 2 epochs, fine-tuned
    assert heard.checkpoints == 1 + 2 * 4 + 1 + 3
    final, expected = tensors_of(kept / f"{heard.checkpoints}.pt", job)
    for number in points(range(1, heard.checkpoints)):
        remaining = heard.checkpoints - number
        again = make_job(lenet, RECIPE, little_data, kept / f"{number}.pt")
        with pytest.raises(KeyboardInterrupt):  # at the last checkpoint; the rest is measuring
            compress(again, Recorder(stop_at=remaining))
        state, got = tensors_of(again.workdir / "checkpoint.pt", again)
        assert got.keys() == expected.keys()
        for name, tensor in got.items():
            assert torch.equal(tensor, expected[name]), (number, name)
        assert [(r.label, r.removed, r.loss) for r in state.reports] == [
            (r.label, r.removed, r.loss) for r in final.reports
        ]
        assert state.certificates == final.certificates
        assert all(torch.equal(state.masks[name], mask) for name, mask in final.masks.items())
    assert len(result.report.stages) == 6
    finished = make_job(lenet, RECIPE, little_data, kept / f"{heard.checkpoints}.pt")
    resumed = Recorder()
    second = compress(finished, resumed)
    assert resumed.logs[0][0] == "resumed from a checkpoint"
    assert resumed.checkpoints == 0
    assert second.report.stages == result.report.stages
    one, other = (torch.jit.load(done.artifacts[0].path) for done in (result, second))
    for name, weight in one.named_parameters():
        assert torch.equal(weight, dict(other.named_parameters())[name])


def test_damaged_and_foreign_checkpoints(make_job, lenet, little_data):
    job = make_job(lenet, RECIPE, little_data)
    with pytest.raises(KeyboardInterrupt):
        compress(job, Recorder(stop_at=2))
    checkpoint = job.workdir / "checkpoint.pt"
    other = make_job(lenet, RECIPE | {"seed": 12}, little_data, checkpoint)
    with pytest.raises(CheckpointUnusable, match="another model, dataset or recipe"):
        compress(other, Recorder())
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(CheckpointUnusable, match="cannot be read") as caught:
        compress(dataclasses.replace(job, checkpoint=checkpoint), Recorder())
    assert caught.value.where == "checkpoint.pt"


def test_a_checkpoint_holds_no_code(make_job, lenet, little_data):
    job = make_job(lenet, RECIPE, little_data)
    with pytest.raises(KeyboardInterrupt):
        compress(job, Recorder(stop_at=4))
    names = sorted(path.name for path in job.workdir.iterdir())
    assert names == ["checkpoint.pt", "checkpoint.training.pt"]
    whole, training = (torch.load(job.workdir / name, weights_only=True) for name in names)
    assert whole["next_step"] == training["next_step"] == 1
    assert training["training"]["epoch"] == 2
