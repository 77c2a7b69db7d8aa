"""Accuracy against ratio, with and without retraining, under L1 and L2."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from secateur.recipe import Penalty, Recipe
from secateur.recipe_tradeoff import TradeOff
from torch import nn

from engine.errors import DatasetInvalid, NothingPruned
from engine.measure.tradeoff import tradeoff_steps
from engine.pipeline import compress
from engine.pipeline.checkpoint import load_checkpoint
from engine.pipeline.report import fingerprint_of
from engine.torchscript.program import Program
from tests.engine.digits import Recorder, save_scripted
from tests.engine.pipeline.conftest import prune

TRAINING = {"epochs": 1, "batch_size": 50, "keep": "last", "optimizer": {"lr": 0.05}}
LINES = [
    {"penalty": "l1", "strength": 0.001},
    {"penalty": "l2", "strength": 0.01},
    {"penalty": "l2", "strength": 0.01, "iterative": True},
]


def tradeoff(**changes):
    return {"ratios": [0.5, 0.9], "lines": LINES, "retraining": TRAINING} | changes


def recipe(**changes):
    return {"stages": [prune(granularity="element")], "tradeoff": tradeoff(**changes)}


class Columns(nn.Module):
    """Each sample is one column: the class is the row with the larger weight there."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([[4.0, 1.0, 0.5, 2.0], [1.0, 3.0, 2.5, 0.1]]))
            self.layer.bias.copy_(torch.tensor([0.01, 0.06]))

    def forward(self, x):
        return self.layer(x)


@pytest.fixture
def columns(tmp_path):
    split = {"inputs/0": torch.eye(4), "targets/0": torch.tensor([0, 1, 1, 0])}
    path = tmp_path / "columns.safetensors"
    save_file(
        {f"{s}/{n}": t.clone() for s in ("train", "validation") for n, t in split.items()}, path
    )
    return save_scripted(Columns().eval(), tmp_path / "columns.pt"), path


def test_points_without_retraining_by_hand(run, columns):
    """Of 8 weights and 2 biases:

    .25  without 0.1 and 0.5: all four columns right, 8 of 10 left
    .5   without 1 and 1 too: [[4, 0, 0, 2], [0, 3, 2.5, 0]], right, 6 left
    .75  only 4 and 3: the last column falls to the bias of the other class, 4 left
    """
    done = run(
        columns[0],
        recipe(ratios=[0.25, 0.5, 0.75], lines=[{"penalty": "none"}]),
        columns[1],
    )
    report = done.result.report.tradeoff
    assert report.granularity == "element"
    (curve,) = report.curves
    assert (curve.penalty, curve.strength, curve.iterative) == ("none", None, False)
    assert curve.dense.correct == 4
    assert [point.ratio for point in curve.points] == [0.25, 0.5, 0.75]
    assert [point.kept_fraction for point in curve.points] == [0.8, 0.6, 0.4]
    assert [point.pruned.correct for point in curve.points] == [4, 4, 3]
    # the last: two columns have nothing but the biases
    logits = torch.tensor([[4.01, 0.06], [0.01, 3.06], [0.01, 0.06], [0.01, 0.06]])
    loss = nn.functional.cross_entropy(logits, torch.tensor([0, 1, 1, 0]))
    assert curve.points[2].pruned_loss == pytest.approx(float(loss), abs=1e-6)
    assert all(point.retrained_loss < point.pruned_loss for point in curve.points)


def test_the_penalty_of_a_line_and_no_other(run):
    settings = TradeOff.model_validate(tradeoff(learning=TRAINING | {"keep": "best", "epochs": 3}))
    steps = tradeoff_steps(settings, 1)
    assert [(step.index, step.point) for step in steps] == [
        (line, point) for line in range(3) for point in (None, 0, 1)
    ]
    assert [step.options.penalty for step in steps[::3]] == [
        Penalty(l1=0.001),
        Penalty(l2=0.01),
        Penalty(l2=0.01),
    ]
    assert {step.options.optimizer.weight_decay for step in steps} == {0.0}
    assert {step.options.keep for step in steps} == {"last"}
    assert [step.options.epochs for step in steps[:3]] == [3, 1, 1]
    # lines draw the same batches
    assert [step.purpose for step in steps[:3]] == [step.purpose for step in steps[3:6]]


def test_learning_under_a_penalty_by_hand(run, columns):
    """One step on all four samples, W - lr (dL/dW + penalty), seen in the loss of what is pruned.

    With a strength of 1 and lr 0.5 the penalties move the weights by sign(w) / 2 and w / 2.
    """
    one_step = TRAINING | {"batch_size": 4, "lr_schedule": "constant"}
    one_step["optimizer"] = {"lr": 0.5, "momentum": 0}
    lines = [{"penalty": "l1", "strength": 1.0}, {"penalty": "l2", "strength": 1.0}]
    done = run(columns[0], recipe(ratios=[0.5], lines=lines, learning=one_step), columns[1])
    weight = torch.tensor([[4.0, 1.0, 0.5, 2.0], [1.0, 3.0, 2.5, 0.1]], requires_grad=True)
    bias = torch.tensor([0.01, 0.06], requires_grad=True)
    targets = torch.tensor([0, 1, 1, 0])
    nn.functional.cross_entropy(weight.T + bias, targets).backward()
    for curve, penalty in zip(
        done.result.report.tradeoff.curves, (weight.sign(), weight), strict=True
    ):
        moved = (weight - 0.5 * (weight.grad + penalty)).detach()
        kept = moved.abs() >= moved.abs().flatten().sort().values[4]
        logits = (moved * kept).T + (bias - 0.5 * bias.grad).detach()
        loss = float(nn.functional.cross_entropy(logits, targets))
        assert curve.points[0].pruned_loss == pytest.approx(loss, abs=1e-5)


@pytest.mark.exhaustive
def test_lines_beside_a_result_that_they_leave_alone(make_job, run, lenet, little_data, tmp_path):
    plain = run(lenet, {"stages": [prune(granularity="element")]}, little_data).result.report
    job = make_job(lenet, recipe(), little_data)
    kept = tmp_path / "kept"
    kept.mkdir()
    heard = Recorder(keep=kept)
    report = compress(job, heard).report
    assert report.provenance.result_sha256 == plain.provenance.result_sha256
    assert [stage.label for stage in report.stages] == [stage.label for stage in plain.stages]
    first, second, third = report.tradeoff.curves
    assert all(curve.dense == report.before.accuracy for curve in (first, second, third))
    # retraining repairs, most where most is gone
    assert all(
        curve.points[1].retrained.top1 > curve.points[1].pruned.top1 for curve in (first, second)
    )
    # nothing was learned under the penalties, so that lines begin alike and part in retraining
    assert first.points[0].pruned == second.points[0].pruned
    assert first.points[1].retrained_loss != second.points[1].retrained_loss
    # the iterative line is the other until it goes on from what it retrained
    assert third.points[0] == second.points[0]
    assert third.points[1].pruned_loss < second.points[1].pruned_loss

    original = Program.load(lenet)
    states = [
        load_checkpoint(kept / f"{number}.pt", original, fingerprint=fingerprint_of(job))
        for number in range(1, heard.checkpoints + 1)
    ]
    held = [s.tradeoff.held for s in states if s.tradeoff.line == 2 and s.tradeoff.held]
    name = "fc1.weight"
    earlier, later = held[0].masks[name], held[-1].masks[name]
    assert (int((~earlier).sum()), int((~later).sum())) == (
        round(0.5 * earlier.numel()),
        round(0.9 * later.numel()),
    )
    assert not bool((later & ~earlier).any())  # masks only grow
    assert bool((held[-1].weights[name][~later] == 0).all())

    for number in range(2, heard.checkpoints + 1, 3):
        again = make_job(lenet, recipe(), little_data, kept / f"{number}.pt")
        assert compress(again, Recorder()).report.tradeoff == report.tradeoff


def test_channels_by_two_norms(run, lenet, little_data):
    lines = [{"penalty": "none"}, {"penalty": "none", "criterion": "l2_norm"}]
    done = run(
        lenet,
        {
            "stages": [prune()],
            "tradeoff": tradeoff(granularity="channel", lines=lines, ratios=[0.01, 0.5]),
        },
        little_data,
    )
    first, second = done.result.report.tradeoff.curves
    # one channel in a hundred rounds to none of them in the smallest layers
    assert first.points[0].kept_fraction > 0.9
    stage = done.result.report.stages[0]
    share = stage.nonzero_parameters / done.result.report.before.parameters
    assert first.points[1].kept_fraction == pytest.approx(share)
    assert first.points[1].pruned == stage.accuracy  # the result is pruned by l1_norm as well
    assert first.points[1].pruned_loss != second.points[1].pruned_loss


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ratios": [0.5, 0.5]}, "must rise"),
        ({"lines": [{"penalty": "l1"}]}, "needs a `strength`"),
        ({"lines": [{"penalty": "none", "strength": 0.1}]}, "has no `strength`"),
        ({"lines": [LINES[0], LINES[0]]}, r"`lines\.1` says the same as `lines\.0`"),
        ({"granularity": "channel"}, r"`lines\.2\.iterative`"),
        ({"retraining": {"penalty": {"l1": 0.1}}}, r"`retraining\.penalty`"),
        ({"learning": {"dropout": "rescale"}}, r"`learning\.dropout: rescale`"),
    ],
)
def test_what_cannot_be_asked(changes, words):
    with pytest.raises(ValidationError, match=words):
        Recipe.model_validate(recipe(**changes))


def test_what_it_needs(run, lenet, little_data, tmp_path):
    asked = Recipe.model_validate(recipe())
    assert asked.needs_dataset() == asked.needs_targets() == asked.needs_validation() == "tradeoff"
    assert ("tradeoff.exclude", []) in list(asked.layer_patterns())
    tensors = {name: t for name, t in load_file(little_data).items() if name.startswith("train/")}
    save_file(tensors, tmp_path / "train.safetensors")
    with pytest.raises(DatasetInvalid, match="validation"):
        run(lenet, recipe(), tmp_path / "train.safetensors")
    with pytest.raises(NothingPruned, match="trade-off") as caught:
        run(lenet, recipe(exclude=["*"]), little_data)
    assert caught.value.where == "recipe.tradeoff.exclude"
