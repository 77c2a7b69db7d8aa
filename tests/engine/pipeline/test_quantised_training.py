"""Training within a quantise stage: it wins back accuracy, and weights keep to what is stored."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from engine.pipeline import compress
from engine.quantisation.weight_only import encode_weight_only
from engine.torchscript.program import Program
from tests.engine.digits import Recorder, digits, save_scripted
from tests.engine.pipeline.conftest import prune

TRAINING = {"epochs": 3, "optimizer": {"kind": "adam", "lr": 0.002}}
ONE = {
    "stage": "quantize",
    "scheme": "weight_only",
    "bits": 1,
    "group_size": None,
    "finetune": TRAINING,
}
SHARED = {"stage": "quantize", "scheme": "codebook", "size": 4, "finetune": TRAINING}
INT8 = {"stage": "quantize", "scheme": "static_int8", "finetune": TRAINING}
PRUNED = prune(granularity="element", allocation={"amount": 0.5, "scope": "global"})


@pytest.fixture(scope="module")
def net(tmp_path_factory) -> Path:
    """Two layers, trained for a second: rounding to one bit costs it a good part."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 96), nn.BatchNorm1d(96), nn.ReLU(), nn.Linear(96, 10)
    )
    data = digits()
    images, targets = data["train/inputs/0"], data["train/targets/0"]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for _ in range(8):
        for rows in torch.randperm(len(targets)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[rows]), targets[rows]).backward()
            optimizer.step()
    return save_scripted(model.eval(), tmp_path_factory.mktemp("net") / "net.pt")


@pytest.fixture(scope="module")
def few_digits(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("few") / "digits.safetensors"
    save_file({name: tensor[:163].clone() for name, tensor in digits().items()}, path)
    return path


def tensors(folder):
    """What the file decodes to."""
    return Program.as_uploaded(folder / "compact.pt").attributes()


def test_one_bit_is_won_back(run, net, data):
    report = run(net, {"stages": [ONE]}, data).result.report
    rounded, trained = report.stages
    assert (rounded.stage, trained.stage) == ("quantize", "finetune")
    assert trained.label == "finetune quantized"
    assert trained.accuracy.top1 > rounded.accuracy.top1 + 0.03
    assert report.after.accuracy == trained.accuracy
    (quantised,) = report.quantization
    assert quantised.trained


def test_pruned_weights_share_values_that_are_trained(run, net, few_digits):
    done, before = (
        run(net, {"stages": [PRUNED, SHARED | {"finetune": training}]}, few_digits)
        for training in (TRAINING, None)
    )
    found, first = tensors(done.folder), tensors(before.folder)
    for name in ("1.weight", "4.weight"):
        weight = found[name]
        assert not torch.equal(weight, first[name])
        # The same elements share, and what was pruned is zero.
        assert torch.equal(weight == 0, first[name] == 0)
        pairs = torch.stack([weight.flatten(), first[name].flatten()], 1).unique(dim=0)
        assert len(pairs) == 4


@pytest.mark.parametrize(
    ("stage", "every"),
    [
        (ONE, 8),
        pytest.param(ONE, 3, marks=pytest.mark.exhaustive),
        pytest.param(SHARED, 3, marks=pytest.mark.exhaustive),
        pytest.param(INT8, 3, marks=pytest.mark.exhaustive),
    ],
)
def test_a_job_resumes_to_the_bit(make_job, net, few_digits, *, tmp_path, stage, every):
    recipe = {"stages": [stage], "checkpoint": {"steps": every}}
    job, heard = make_job(net, recipe, few_digits), Recorder(keep=tmp_path)
    whole = compress(job, heard)
    assert heard.checkpoints >= 4
    for number in range(2, heard.checkpoints):
        again = make_job(net, recipe, few_digits, tmp_path / f"{number}.pt")
        report = compress(again, Recorder()).report
        assert report.quantization == whole.report.quantization
        first, second = tensors(job.workdir), tensors(again.workdir)
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_weights_of_an_earlier_stage_stay(run, net, few_digits):
    first = {"stage": "quantize", "scheme": "weight_only", "bits": 8, "exclude": ["4"]}
    before = Program.load(net).attributes()
    both = tensors(run(net, {"stages": [first, SHARED]}, few_digits).folder)
    stored = encode_weight_only(before["1.weight"], bits=8, group_size=64).decode()
    assert torch.equal(stored, both["1.weight"])
    assert not torch.equal(before["1.bias"], both["1.bias"])
    assert len(both["4.weight"].unique()) == 4


def test_int8_is_trained_and_lowered_with_its_ranges(run, net, few_digits):
    done = run(net, {"stages": [PRUNED, INT8]}, few_digits)
    report = done.result.report
    *_, calibrated, trained = report.stages
    assert (calibrated.stage, trained.stage) == ("quantize", "finetune")
    assert trained.loss < calibrated.loss
    # What was measured is the file, in integers.
    assert report.after.loss == trained.loss
    assert report.quantization[0].trained
    graph = str(Program.as_uploaded(done.folder / "compact.pt").module.inlined_graph)
    assert "quantized::linear_relu" in graph
    assert "fused_moving_avg" not in graph


@pytest.mark.exhaustive
@pytest.mark.parametrize("stage", [ONE, SHARED], ids=["rounded", "shared"])
def test_two_processes_train_what_one_does(run, net, few_digits, stage):
    training = TRAINING | {"batch_norm": "frozen", "batch_size": 32, "keep": "last"}
    one, two = (
        run(net, {"devices": devices, "stages": [stage | {"finetune": training}]}, few_digits)
        for devices in (1, 2)
    )
    expected = tensors(one.folder)
    for name, tensor in tensors(two.folder).items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-5)
