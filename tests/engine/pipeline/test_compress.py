from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from secateur.recipe import Recipe
from secateur.report import Report
from torch import Tensor, nn

from engine.errors import CertificateFailed
from engine.job import JobInput
from engine.pipeline import compress
from engine.pipeline.checkpoint import load_checkpoint
from engine.pipeline.compress import ResultBreaksConstraint
from engine.pipeline.report import fingerprint_of
from engine.torchscript.program import Program
from tests.engine.digits import Recorder, digits, save_scripted
from tests.engine.pipeline.conftest import QUICK, Done, prune
from tests.zoo import traced

ITERATIVE = {"kind": "iterative", "rounds": 2, "finetune": {"epochs": 2}}
IMAGES = [{"shape": [1, 1, 8, 8]}]


def accuracy(path):
    data = digits()
    model = torch.jit.load(path)
    with torch.no_grad():
        logits = model(data["validation/inputs/0"])
    return int((logits.argmax(1) == data["validation/targets/0"]).sum())


@pytest.fixture(scope="module")
def iterated(tmp_path_factory, lenet, data):
    recipe = {
        "stages": [prune(schedule=ITERATIVE), {"stage": "finetune", "epochs": 2}],
        "seed": 3,
        "measure": QUICK,
    }
    workdir = tmp_path_factory.mktemp("iterated")
    job = JobInput(model=lenet, recipe=Recipe.model_validate(recipe), workdir=workdir, dataset=data)
    heard = Recorder()
    return Done(compress(job, heard), heard, workdir)


def test_iterative_pruning_with_fine_tuning(iterated, lenet):
    done, report = iterated, iterated.result.report

    model = torch.jit.load(done.folder / "compact.pt")
    assert {name: list(p.shape) for name, p in model.named_parameters()}["conv2.weight"] == [
        25, 10, 5, 5,
    ]  # fmt: skip
    assert report.after.accuracy.correct == accuracy(done.folder / "compact.pt")
    assert report.before.accuracy.correct == accuracy(lenet)
    assert report.after.accuracy.total == 360
    assert report.before.file_bytes == lenet.stat().st_size
    assert report.after.file_bytes == (done.folder / "compact.pt").stat().st_size
    # 20, 50, 120, 84 channels at one half: 1 x 10, 10 x 25, 100 x 60, 60 x 42, 42 x 10
    assert report.after.parameters == 260 + 6275 + 6060 + 2562 + 430
    assert report.after.nonzero_parameters == report.after.parameters
    assert report.after.macs < 0.3 * report.before.macs
    assert report.after.accuracy.correct > report.before.accuracy.correct - 20
    assert [stage.label for stage in report.stages] == [
        "prune round 1 of 2",
        "finetune after round 1 of 2",
        "prune round 2 of 2",
        "finetune after round 2 of 2",
        "finetune",
    ]
    assert sum(stage.removed for stage in report.stages) == 10 + 25 + 60 + 42
    assert report.certificate.passed
    assert report.certificate.kind == "exact"
    assert report.certificate.max_relative_error < 1e-9
    assert report.certificate.reloaded_in_fresh_process
    assert [item.batch_size for item in report.after.latency_ms] == [1, 8]
    assert report.verdict.constraints_met
    assert report.frozen[0].layer == "fc3"

    names = [name for _, name in done.heard.started]
    assert names == [
        "measure the original",
        *[s.label for s in report.stages],
        "verify and measure",
    ]
    assert [name for _, name, _ in done.heard.finished] == names
    stages = {stage for name, _, _, stage in done.heard.metrics if name == "validation/accuracy"}
    assert stages == {label for label in names if label.startswith("finetune")}


def test_files_of_the_result(iterated):
    done = iterated
    kinds = {artifact.kind: artifact.path for artifact in done.result.artifacts}
    assert set(kinds) == {"model", "report_json", "recipe"}
    assert Report.model_validate_json(kinds["report_json"].read_text()) == done.result.report
    again = Recipe.model_validate(yaml.safe_load(kinds["recipe"].read_text()))
    assert again.seed == 3
    provenance = done.result.report.provenance
    assert len({provenance.model_sha256, provenance.dataset_sha256, provenance.result_sha256}) == 3
    assert provenance.versions["torch"] == torch.__version__
    assert provenance.deterministic
    keys = set(json.loads(kinds["report_json"].read_text())["before"])
    assert keys == {
        "file_bytes", "memory_bytes", "parameters", "nonzero_parameters", "macs", "loss",
        "accuracy", "metrics", "evaluation_ms", "latency_ms",
    }  # fmt: skip
    assert not (done.folder / "reload.pt").exists()


def test_elements_give_masks_that_hold_through_training(run, lenet, little_data):
    recipe = {
        "stages": [
            prune(granularity="element", allocation={"amount": 0.8}, schedule=ITERATIVE),
            {"stage": "finetune", "epochs": 1, "optimizer": {"kind": "adamw", "lr": 0.001}},
        ]
    }
    done = run(lenet, recipe, little_data)
    masks = load_file(done.folder / "masks.safetensors")
    weights = dict(torch.jit.load(done.folder / "compact.pt").named_parameters())
    assert set(masks) == {name for name, weight in weights.items() if weight.dim() >= 2}
    for name, mask in masks.items():
        assert int((~mask).sum()) == round(0.8 * mask.numel())
        assert torch.count_nonzero(weights[name][~mask]) == 0
    report = done.result.report
    assert {artifact.kind for artifact in done.result.artifacts} >= {"masks"}
    assert report.after.parameters == report.before.parameters
    assert sum(stage.removed for stage in report.stages) == sum(
        int((~mask).sum()) for mask in masks.values()
    )
    assert any("dense kernels do not skip" in text for text in report.verdict.warnings)


def test_masks_follow_the_channels(run, lenet):
    recipe = {
        "inputs": IMAGES,
        "stages": [prune(granularity="element", allocation={"amount": 0.3}), prune()],
    }
    done = run(lenet, recipe)
    masks = load_file(done.folder / "masks.safetensors")
    weights = dict(torch.jit.load(done.folder / "compact.pt").named_parameters())
    assert masks["conv2.weight"].shape == weights["conv2.weight"].shape == (25, 10, 5, 5)
    for name, mask in masks.items():
        np.testing.assert_array_equal((weights[name] != 0).detach(), mask)


def test_same_seed_same_bits(make_job, lenet, little_data):
    def weights(seed):
        stages = [prune(criterion="random", schedule=ITERATIVE)]
        job = make_job(lenet, {"stages": stages, "seed": seed}, little_data)
        with pytest.raises(KeyboardInterrupt):  # after the last step; the rest is measuring
            compress(job, Recorder(stop_at=9))
        path = job.workdir / "checkpoint.pt"
        state = load_checkpoint(path, Program.load(lenet), fingerprint=fingerprint_of(job))
        assert state.next_step == 4
        return state.program.attributes()

    one, other, another = weights(5), weights(5), weights(6)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(one["conv2.weight"], another["conv2.weight"])


def test_global_round_to_exclude_and_no_dataset(run, lenet):
    stage = prune(allocation={"scope": "global", "amount": 0.4}, round_to=4, exclude=["conv1"])
    done = run(lenet, {"inputs": IMAGES, "stages": [stage]})
    shapes = {
        name: list(p.shape)
        for name, p in torch.jit.load(done.folder / "compact.pt").named_parameters()
    }
    assert shapes["conv1.weight"] == [20, 1, 5, 5]
    assert all(shapes[f"{name}.weight"][0] % 4 == 0 for name in ("conv2", "fc1", "fc2"))
    reasons = {item.layer: item.reason for item in done.result.report.frozen}
    assert "conv1" in reasons["conv1"]
    assert done.result.report.after.accuracy is None
    assert any("no validation split" in text for text in done.result.report.verdict.warnings)


def test_broken_constraint_keeps_the_result(make_job, lenet, data):
    job = make_job(
        lenet,
        {"stages": [prune(allocation={"amount": 0.9})], "constraints": {"max_accuracy_drop": 0.01}},
        data,
    )
    with pytest.raises(ResultBreaksConstraint) as caught:
        compress(job, Recorder())
    error = caught.value
    assert error.type == "constraint-unmet"
    assert error.where == "recipe.constraints.max_accuracy_drop"
    assert "top-1 fell by" in error.title
    assert {artifact.kind for artifact in error.artifacts} == {"model", "report_json", "recipe"}
    assert all(artifact.path.exists() for artifact in error.artifacts)
    assert not error.report.verdict.ok
    assert not error.report.verdict.constraints_met


def test_a_failing_certificate_leaves_no_model(make_job, lenet, monkeypatch):
    import engine.pipeline.prune as module  # noqa: PLC0415

    right = module.compact

    def wrong(*arguments):
        program = right(*arguments)
        with torch.no_grad():
            program.parameters()["conv1.weight"].mul_(1.001)
        return program

    monkeypatch.setattr(module, "compact", wrong)
    job = make_job(lenet, {"inputs": IMAGES, "stages": [prune()]})
    with pytest.raises(CertificateFailed) as caught:
        compress(job, Recorder())
    assert caught.value.where == "certificate"
    assert not (job.workdir / "compact.pt").exists()


class FixedBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 32)
        self.second = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x.view(4, 64))))


def test_a_model_of_fixed_batch_size(run, tmp_path, little_data):
    model = save_scripted(FixedBatch().eval(), tmp_path / "fixed.pt")
    recipe = {
        "inputs": [{"shape": [4, 1, 8, 8]}],
        "stages": [prune(), {"stage": "finetune", "epochs": 1, "batch_size": 4}],
    }
    report = run(model, recipe, little_data).result.report
    assert [item.batch_size for item in report.after.latency_ms] == [4]
    assert any("could not be measured" in text for text in report.verdict.warnings)
    assert report.after.macs == 64 * 16 + 16 * 10
    assert report.after.accuracy.total == 200


@pytest.mark.parametrize("name", ["vgg_digits", "bert_encoder"])
def test_other_architectures_traced(run, tmp_path, name):
    path = tmp_path / "model.pt"
    torch.jit.save(traced(name), path)
    image = {"shape": [2, 1, 8, 8]}
    tokens = {"shape": [2, 16], "dtype": "int64", "high": 1000}
    recipe = {"inputs": [tokens if name == "bert_encoder" else image], "stages": [prune()]}
    report = run(path, recipe).result.report
    assert report.certificate.passed
    assert report.after.macs < 0.6 * report.before.macs
