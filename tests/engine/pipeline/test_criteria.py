"""Criteria that look at data, from the recipe to the result."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from engine.errors import CriterionDoesNotFit, DatasetInvalid
from engine.pipeline import compress
from engine.planning import plan
from tests.engine.digits import Recorder, digits, save_scripted
from tests.engine.pipeline.conftest import prune
from tests.engine.pipeline.test_resume import tensors_of

IMAGES = [{"shape": [1, 1, 8, 8]}]
ITERATIVE = {"kind": "iterative", "rounds": 2, "finetune": {"epochs": 1}}
SCORING = {"samples": 64, "batch_size": 16}


@pytest.mark.parametrize("criterion", ["taylor", "apoz"])
def test_resumed_runs_judge_alike(make_job, lenet, little_data, tmp_path, criterion):
    stage = prune(criterion=criterion, schedule=ITERATIVE, scoring=SCORING)
    recipe = {"seed": 5, "stages": [stage]}
    kept = tmp_path / "kept"
    kept.mkdir()
    heard = Recorder(keep=kept)
    job = make_job(lenet, recipe, little_data)
    report = compress(job, heard).report
    assert report.certificate.passed
    assert report.after.parameters == 260 + 6275 + 6060 + 2562 + 430
    assert report.after.accuracy.correct > 0.7 * report.after.accuracy.total
    _, expected = tensors_of(kept / f"{heard.checkpoints}.pt", job)
    for number in (1, heard.checkpoints - 2):
        again = make_job(lenet, recipe, little_data, kept / f"{number}.pt")
        with pytest.raises(KeyboardInterrupt):
            compress(again, Recorder(stop_at=heard.checkpoints - number))
        _, got = tensors_of(again.workdir / "checkpoint.pt", again)
        assert got.keys() == expected.keys()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in got.items())


def removed(planned):
    return sum(group["removed"] for group in planned["groups"])


@pytest.mark.parametrize(
    "criterion",
    [
        "geometric_median",
        "lamp",
        "apoz",
        "mean_activation",
        "wanda",
        "gradient",
        "taylor",
        "hessian",
        "snip",
        "grasp",
        "synflow",
    ],
)
def test_plans_of_channels(make_job, lenet, little_data, criterion):
    planned = plan(make_job(lenet, {"stages": [prune(criterion=criterion)]}, little_data))
    assert removed(planned) == 10 + 25 + 60 + 42


@pytest.mark.parametrize("criterion", ["lamp", "wanda", "taylor", "grasp", "synflow"])
def test_masks_of_elements_hold_and_grow(run, lenet, little_data, criterion):
    stage = prune(
        granularity="element",
        criterion=criterion,
        allocation={"scope": "global", "amount": 0.5},
        schedule=ITERATIVE,
    )
    done = run(lenet, {"stages": [stage]}, little_data)
    masks = load_file(done.folder / "masks.safetensors")
    total = sum(mask.numel() for mask in masks.values())
    assert sum(int((~mask).sum()) for mask in masks.values()) == total // 2
    weights = dict(torch.jit.load(done.folder / "compact.pt").named_parameters())
    assert all(torch.count_nonzero(weights[name][~mask]) == 0 for name, mask in masks.items())
    # half of the weights in two rounds of the same ratio
    first = round((1 - 0.5**0.5) * total)
    rounds = [stage.removed for stage in done.result.report.stages][::2]
    assert rounds == [first, total // 2 - first]


def test_a_teacher_needs_no_targets(make_job, lenet, tmp_path):
    path = tmp_path / "unlabelled.safetensors"
    save_file({"train/inputs/0": digits()["train/inputs/0"][:64].clone()}, path)
    stage = prune(criterion="taylor", scoring={"target": "teacher"})
    assert removed(plan(make_job(lenet, {"stages": [stage]}, path))) == 137
    for criterion in ("apoz", "wanda"):
        assert removed(plan(make_job(lenet, {"stages": [prune(criterion=criterion)]}, path)))
    with pytest.raises(DatasetInvalid, match=r"no targets, which `stages\.0\.criterion` needs"):
        plan(make_job(lenet, {"stages": [prune(criterion="taylor")]}, path))


def test_a_criterion_of_data_without_data(make_job, lenet):
    with pytest.raises(DatasetInvalid, match=r"`stages\.0\.criterion` needs a dataset") as caught:
        plan(make_job(lenet, {"inputs": IMAGES, "stages": [prune(criterion="apoz")]}))
    assert caught.value.where == "recipe.stages.0.criterion"


def test_bn_scale_without_batch_norm_fails_with_the_layers_and_the_remedy(make_job, lenet):
    recipe = {"inputs": IMAGES, "stages": [prune(criterion="bn_scale")]}
    with pytest.raises(CriterionDoesNotFit, match=r"layers `conv1`, `conv2`, `fc1`") as caught:
        compress(make_job(lenet, recipe), Recorder())
    assert caught.value.where == "recipe.stages.0.criterion"
    assert "l1_norm" in caught.value.hint


def test_bn_scale_keeps_channels_without_batch_norm_and_says_so(run, tmp_path):
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 6),
        nn.ReLU(), nn.Linear(6, 10),
    )  # fmt: skip
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([0.1, 3.0, -0.2, 2.0]))
        kept = model[0].weight[[1, 3]].clone()
    file = save_scripted(model.eval(), tmp_path / "bn.pt")
    done = run(file, {"inputs": IMAGES, "stages": [prune(criterion="bn_scale")]})
    got = dict(torch.jit.load(done.folder / "compact.pt").named_parameters())
    torch.testing.assert_close(got["0.weight"], kept)
    assert got["4.weight"].shape == (6, 72)
    (frozen,) = [item for item in done.result.report.frozen if item.op == "bn_scale"]
    assert (frozen.layer, frozen.channels) == ("4", 6)


def test_wanda_leaves_weights_whose_inputs_it_does_not_know_and_says_so(run, tmp_path):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.place = nn.Parameter(torch.randn(1, 64))
            self.fc = nn.Linear(64, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x.flatten(1) + self.place)

    path = tmp_path / "data.safetensors"
    save_file({name: tensor[:64].clone() for name, tensor in digits().items()}, path)
    file = save_scripted(Net().eval(), tmp_path / "net.pt")
    done = run(file, {"stages": [prune(granularity="element", criterion="wanda")]}, path)
    assert set(load_file(done.folder / "masks.safetensors")) == {"fc.weight"}
    (frozen,) = [item for item in done.result.report.frozen if item.op == "wanda"]
    assert "`place` is not masked" in frozen.reason
