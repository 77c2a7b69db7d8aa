"""Prune stages of granularity `layer` in whole jobs."""

from __future__ import annotations

from itertools import count

import pytest
import torch
from safetensors.torch import load_file, save_file
from secateur.recipe import Recipe
from torch import nn

from engine.errors import NothingPruned
from engine.job import JobInput
from engine.pipeline import compress
from engine.pipeline.checkpoint import load_checkpoint
from engine.pipeline.report import fingerprint_of
from engine.planning import plan
from engine.torchscript.program import Program
from tests.engine.digits import Recorder, digits, save_scripted
from tests.engine.layers.nets import DigitsNet, chain, scaling

IMAGES = [{"shape": [2, 1, 8, 8]}]
BRANCH = 2 * 8 * 8 * 9 + 4 * 8  # two 3x3 convolutions of 8 channels, two norms


@pytest.fixture(scope="module")
def digits_net(tmp_path_factory):
    torch.manual_seed(0)
    model = DigitsNet()
    data = digits()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(3):
        for rows in torch.randperm(1437).split(64):
            optimizer.zero_grad()
            images, targets = data["train/inputs/0"][rows], data["train/targets/0"][rows]
            nn.functional.cross_entropy(model(images), targets).backward()
            optimizer.step()
    return save_scripted(model.eval(), tmp_path_factory.mktemp("net") / "net.pt")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("digits") / "little.safetensors"
    save_file({name: tensor[:300].clone() for name, tensor in digits().items()}, path)
    return path


@pytest.fixture
def job(tmp_path):
    numbers = count()

    def job(model, *stages, dataset=None, inputs=None, checkpoint=None, **rest):
        workdir = tmp_path / f"work{next(numbers)}"
        workdir.mkdir()
        recipe = {"stages": list(stages), "measure": {"batch_sizes": [1], "runs": 5}} | rest
        if inputs is not None:
            recipe["inputs"] = inputs
        return JobInput(
            model=model,
            recipe=Recipe.model_validate(recipe),
            workdir=workdir,
            dataset=dataset,
            threads=torch.get_num_threads(),
            checkpoint=checkpoint,
        )

    return job


def layers(**fields):
    return {"stage": "prune", "granularity": "layer", "allocation": {"amount": 0.5}} | fields


def test_rounds_with_fine_tuning(job, digits_net, data):
    schedule = {"kind": "iterative", "rounds": 2, "finetune": {"epochs": 2}}
    task = job(digits_net, layers(schedule=schedule), {"stage": "finetune"}, dataset=data)
    heard = Recorder()
    report = compress(task, heard).report

    # Of 4 branches one goes in each round.
    assert [(stage.label, stage.removed) for stage in report.stages] == [
        ("prune round 1 of 2", 1),
        ("finetune after round 1 of 2", 0),
        ("prune round 2 of 2", 1),
        ("finetune after round 2 of 2", 0),
        ("finetune", 0),
    ]
    gone = [name for stage in report.stages for name in stage.removed_layers]
    assert len(set(gone)) == 2
    assert set(gone) < {f"blocks.{n}" for n in range(4)}
    assert report.before.parameters - report.after.parameters == 2 * BRANCH
    assert report.after.macs < 0.55 * report.before.macs
    assert report.certificate.passed
    assert report.certificate.kind == "exact"
    assert report.certificate.reloaded_in_fresh_process
    assert report.after.accuracy.top1 > report.before.accuracy.top1 - 0.05
    shapes = {item.name: item.shape_after for item in report.layers}
    assert [shapes[f"{name}.conv1.weight"] for name in gone] == [[0], [0]]
    assert any(gone[0] in message for message, _ in heard.logs)

    model = Program.load(task.workdir / "compact.pt")
    assert all(model.attributes()[f"{name}.bn1.running_mean"].numel() == 0 for name in gone)


def test_layers_then_channels(job, digits_net):
    channels = {"stage": "prune", "allocation": {"amount": 0.5}, "exclude": ["stem"]}
    task = job(digits_net, layers(), channels, inputs=IMAGES)
    report = compress(task, Recorder()).report
    assert report.stages[0].removed == 2
    # The stream of 8 channels stays with the stem; in both blocks 4 inner channels go.
    assert report.stages[1].removed == 8
    assert report.stages[0].parameters - report.stages[1].parameters == 2 * (2 * 4 * 72 + 2 * 4)
    assert report.certificate.passed


def test_channels_then_layers(job, digits_net):
    channels = {"stage": "prune", "allocation": {"amount": 0.5}, "exclude": ["stem"]}
    report = compress(job(digits_net, channels, layers(), inputs=IMAGES), Recorder()).report
    assert [stage.removed for stage in report.stages] == [16, 2]
    small = 2 * 4 * 72 + 2 * 4 + 2 * 8
    assert report.stages[0].parameters - report.stages[1].parameters == 2 * small


def test_masks_of_removed_layers_go(job, digits_net, data):
    elements = {"stage": "prune", "granularity": "element", "allocation": {"amount": 0.5}}
    task = job(digits_net, elements, layers(), {"stage": "finetune"}, dataset=data)
    report = compress(task, Recorder()).report
    masks = load_file(task.workdir / "masks.safetensors")
    model = Program.load(task.workdir / "compact.pt")
    gone = report.stages[1].removed_layers
    assert len(gone) == 2
    assert len(masks) == 2 * 2 + 2
    assert not any(name.startswith(f"{layer}.") for name in masks for layer in gone)
    for name, mask in masks.items():
        assert torch.equal(model.parameters()[name] != 0, mask)


def test_a_resumed_job_chooses_the_same(job, digits_net, data):
    schedule = {"kind": "iterative", "rounds": 2, "finetune": {"epochs": 1}}
    whole = job(digits_net, layers(schedule=schedule), dataset=data)
    expected = compress(whole, Recorder()).report
    stopped = job(digits_net, layers(schedule=schedule), dataset=data)
    with pytest.raises(KeyboardInterrupt):
        compress(stopped, Recorder(stop_at=3))
    checkpoint = stopped.workdir / "checkpoint.pt"
    state = load_checkpoint(
        checkpoint, Program.load(digits_net), fingerprint=fingerprint_of(stopped)
    )
    assert 0 < state.next_step < 4  # which is the third checkpoint follows from the clock
    again = job(digits_net, layers(schedule=schedule), dataset=data, checkpoint=checkpoint)
    resumed = compress(again, Recorder()).report
    assert [stage.removed_layers for stage in resumed.stages] == [
        stage.removed_layers for stage in expected.stages
    ]
    first, second = (Program.load(task.workdir / "compact.pt") for task in (whole, again))
    for name, weight in first.attributes().items():
        assert torch.equal(weight, second.attributes()[name])


def test_the_plan_lists_every_branch_with_its_score(job, tmp_path):
    model = save_scripted(chain(scaling(0.25), scaling(0.5), scaling(-0.4)), tmp_path / "net.pt")
    got = plan(job(model, layers(allocation={"count": 2}), inputs=[{"shape": [1, 2]}]))
    rows = [(g["name"], g["removed"], g["kept"], g["parameters"]) for g in got["groups"]]
    assert rows == [("0.fc", 1, 0, 4), ("1.fc", 0, 1, 4), ("2.fc", 1, 0, 4)]
    assert [g["score"] for g in got["groups"]] == pytest.approx([0.2, 1 / 3, 2 / 3])
    assert got["groups"][1]["score_when_removed"] is None
    assert got["groups"][2]["score_when_removed"] == pytest.approx(1 / 3)
    assert (got["before"]["parameters"], got["predicted"]["parameters"]) == (12, 4)
    assert got["granularity"] == "layer"


@pytest.mark.parametrize(
    ("model", "fields", "title", "hint", "where"),
    [
        (chain(scaling(1.0)), {"allocation": {"amount": 0.4}}, "0.4 of 1 residual branches",
         "`amount`", "allocation"),
        (nn.Linear(2, 2), {}, "no residual branch", "`granularity: channel`", "granularity"),
        (chain(scaling(1.0)), {"exclude": ["*"]}, "no residual branch", "excluded by the pattern",
         "exclude"),
    ],
)  # fmt: skip
def test_a_plan_that_removes_nothing_says_why(  # noqa: PLR0917  its cases
    job, tmp_path, model, fields, title, hint, where
):
    path = save_scripted(model, tmp_path / "net.pt")
    task = job(path, layers(**fields), inputs=[{"shape": [1, 2]}])
    with pytest.raises(NothingPruned, match=title) as error:
        compress(task, Recorder())
    assert hint in error.value.hint
    assert error.value.where == f"recipe.stages.0.{where}"
