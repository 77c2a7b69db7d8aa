"""Jobs whose trainings learn from the upload: with labels, and without any."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from engine.errors import DatasetInvalid
from engine.pipeline import compress
from engine.pipeline.checkpoint import load_checkpoint
from engine.pipeline.report import fingerprint_of
from engine.torchscript.program import Program
from tests.engine.digits import Recorder, digits
from tests.engine.pipeline.conftest import prune

ALONE = {"alpha": 1, "temperature": 4}
SGD = {"lr": 0.02}


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory):
    """Training inputs without targets, and a validation split with them."""
    path = tmp_path_factory.mktemp("unlabelled") / "digits.safetensors"
    data = digits()
    del data["train/targets/0"]
    save_file(data, path)
    return path


def told(done, name, stage):
    return [
        value for metric, value, _, label in done.heard.metrics if (metric, label) == (name, stage)
    ]


def test_recovery_without_labels_in_a_schedule_a_stage_and_a_control(run, lenet, unlabelled):
    schedule = {
        "kind": "iterative",
        "rounds": 2,
        "finetune": {"epochs": 1, "optimizer": SGD, "distillation": ALONE},
    }
    recipe = {
        "stages": [
            prune(schedule=schedule, allocation={"scope": "global", "amount": 0.5}),
            {"stage": "finetune", "epochs": 4, "optimizer": SGD, "distillation": ALONE},
        ],
        "baselines": [{"kind": "scratch_e"}],
    }
    done = run(lenet, recipe, unlabelled)
    report = done.result.report
    assert report.certificate.passed
    pruned = next(item for item in report.stages if item.label == "prune round 2 of 2")
    assert pruned.accuracy.top1 < report.before.accuracy.top1 - 0.05
    assert report.after.accuracy.top1 > pruned.accuracy.top1 + 0.05
    agreement = told(done, "train/agreement", "finetune")
    assert len(agreement) == 4
    assert agreement[-1] > 0.9
    assert told(done, "train/accuracy", "finetune") == []
    # The control has the teacher of the result: all its six epochs are taught.
    assert len(told(done, "train/agreement", "baseline scratch_e")) == 6
    assert report.baselines[0].accuracy.top1 > 0.3


def test_a_control_with_a_training_of_its_own_learns_from_labels(run, lenet, little_data):
    taught = {"stage": "finetune", "epochs": 1, "distillation": {}}
    recipe = {
        "stages": [prune(), taught],
        "baselines": [{"kind": "scratch_e", "training": {"epochs": 1}}],
    }
    done = run(lenet, recipe, little_data)
    assert len(told(done, "train/agreement", "finetune")) == 1
    assert told(done, "train/agreement", "baseline scratch_e") == []
    assert len(told(done, "train/loss", "baseline scratch_e")) == 1


def test_the_teacher_is_the_upload_and_not_what_was_pruned(run, lenet, little_data):
    # At rate zero nothing moves: what the first epoch tells is the pruned model beside its teacher.
    still = {"optimizer": {"lr": 1e-12, "weight_decay": 0}, "batch_norm": "frozen"}
    stage = {"stage": "finetune", **still, "distillation": ALONE}
    done = run(lenet, {"stages": [prune(allocation={"amount": 0.7}), stage]}, little_data)
    images = digits()["train/inputs/0"][:200]
    with torch.no_grad():
        upload = torch.jit.load(lenet)(images)
        small = torch.jit.load(done.folder / "compact.pt")(images)
    p, q = (torch.softmax(scores / 4, dim=1) for scores in (upload, small))
    expected = 16 * float((p * (p / q).log()).sum(dim=1).mean())
    assert expected > 0.1
    assert told(done, "train/distillation", "finetune") == pytest.approx([expected], rel=1e-4)
    same = float((upload.argmax(1) == small.argmax(1)).float().mean())
    assert told(done, "train/agreement", "finetune") == pytest.approx([same])


def test_labels_that_have_a_share_must_be_in_the_dataset(run, lenet, unlabelled):
    stage = {"stage": "finetune", "distillation": {"alpha": 0.9}}
    with pytest.raises(DatasetInvalid) as caught:
        run(lenet, {"stages": [prune(), stage]}, unlabelled)
    assert caught.value.where == "train/targets/0"


def test_without_any_train_split_the_training_is_named(run, lenet, tmp_path):
    data = {name: tensor for name, tensor in digits().items() if name.startswith("validation")}
    save_file(data, tmp_path / "d.safetensors")
    stage = {"stage": "finetune", "distillation": ALONE}
    with pytest.raises(DatasetInvalid, match=r"no `train` split, which `stages\.1` needs"):
        run(lenet, {"stages": [prune(), stage]}, tmp_path / "d.safetensors")


@pytest.mark.parametrize(
    "stage",
    [
        prune(
            granularity="element",
            schedule={"kind": "rigl", "every_steps": 3, "finetune": {"distillation": ALONE}},
        ),
        prune(
            granularity="element",
            schedule={"kind": "imp", "rounds": 1, "training": {"distillation": ALONE}},
        ),
        prune(
            criterion="tournament",
            tournament={"criteria": ["l1_norm", "random"], "recovery": {"distillation": ALONE}},
        ),
    ],
    ids=["rigl", "imp", "tournament"],
)
def test_other_trainings_learn_without_labels_too(run, lenet, unlabelled, stage):
    done = run(lenet, {"stages": [stage]}, unlabelled)
    assert done.result.report.certificate.passed
    assert any(name == "train/distillation" for name, *_ in done.heard.metrics)


def test_a_job_stopped_at_any_checkpoint_ends_with_the_same_bits(
    make_job, lenet, unlabelled, tmp_path, points
):
    schedule = {"kind": "iterative", "rounds": 2, "finetune": {"distillation": ALONE}}
    recipe = {
        "stages": [
            prune(schedule=schedule),
            {"stage": "finetune", "epochs": 2, "distillation": ALONE},
        ]
    }
    job = make_job(lenet, recipe, unlabelled)
    heard = Recorder(keep=tmp_path)
    compress(job, heard)

    def weights(path, job):
        original = Program.load(job.model)
        state = load_checkpoint(path, original, fingerprint=fingerprint_of(job))
        return state.program.attributes()

    expected = weights(tmp_path / f"{heard.checkpoints}.pt", job)
    for number in points(range(1, heard.checkpoints)):
        again = make_job(lenet, recipe, unlabelled, tmp_path / f"{number}.pt")
        with pytest.raises(KeyboardInterrupt):  # at the last checkpoint; the rest is measuring
            compress(again, Recorder(stop_at=heard.checkpoints - number))
        got = weights(again.workdir / "checkpoint.pt", again)
        assert got.keys() == expected.keys()
        assert all(torch.equal(got[name], expected[name]) for name in got), number
