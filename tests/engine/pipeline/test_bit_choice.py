"""Jobs that choose the bits of each weight, and jobs whose weights fall back."""

from __future__ import annotations

import pytest

from engine.errors import DatasetInvalid
from engine.pipeline import compress
from engine.quantisation.mixed_precision import BudgetOutOfReach
from engine.torchscript.program import Program
from tests.engine.digits import Recorder

INPUTS = [{"shape": [2, 1, 8, 8]}]


def mixed(**budget):
    return {
        "stage": "quantize",
        "scheme": "mixed_precision",
        "formats": [8, 4, 2, "keep"],
        "budget": budget,
    }


def test_a_budget_of_bytes_is_kept_and_explained(run, lenet, data):
    done = run(lenet, {"stages": [mixed(bytes=0.16)]}, data)
    report = done.result.report
    (stage,) = report.quantization
    choice = stage.allocation
    assert (choice.rule, choice.measure, choice.samples, choice.lost) == (
        "bytes", "drift", 256, None,
    )  # fmt: skip
    assert choice.bytes <= choice.limit == pytest.approx(0.16 * choice.bytes_before)
    # What is said of bytes is what is stored.
    after = {layer.name: layer.bytes_after for layer in stage.layers}
    assert sum(after[one.name] for one in choice.weights) == choice.bytes
    assert len({one.chosen for one in choice.weights}) > 1
    for one in choice.weights:
        finer = [one.loss[form] for form in ("2", "4", "8") if form in one.loss]
        assert finer == sorted(finer, reverse=True), one.name
    assert choice.predicted == pytest.approx(choice.measured, rel=0.6)
    assert report.after.file_bytes < 0.3 * report.before.file_bytes
    # All in 2 bits is as small and loses far more.
    assert report.after.accuracy.top1 >= report.before.accuracy.top1 - 0.03


def test_a_limit_of_accuracy_is_kept_on_the_samples_it_names(run, lenet, data):
    stage = mixed(max_accuracy_drop=0.005, samples=None)
    done = run(lenet, {"stages": [stage]}, data)
    report = done.result.report
    choice = report.quantization[0].allocation
    assert choice.samples == report.before.accuracy.total
    dropped = report.before.accuracy.top1 - report.after.accuracy.top1
    assert dropped == pytest.approx(choice.lost)
    assert dropped <= 0.005
    assert choice.bytes < 0.25 * choice.bytes_before
    assert choice.tried >= 1


def test_without_data_the_drift_of_the_example_is_kept(run, lenet):
    recipe = {"inputs": INPUTS, "stages": [mixed(max_drift=0.05)]}
    report = run(lenet, recipe).result.report.quantization[0]
    assert report.allocation.lost == report.allocation.measured <= 0.05
    assert report.allocation.samples == 2


@pytest.mark.parametrize(
    ("scheme", "asked", "most"),
    [
        ({"scheme": "codebook", "size": 4}, "codebook", 0.3),
        pytest.param({"scheme": "weight_only", "bits": 2}, "2", 0.3, marks=pytest.mark.exhaustive),
    ],
)
def test_what_collapses_falls_back_and_is_named(run, lenet, scheme, asked, most):
    stage = {"stage": "quantize", **scheme}
    rule = {"fall_back": {"max_drift": most}}
    done = run(lenet, {"inputs": INPUTS, "stages": [stage | rule]})
    report = done.result.report.quantization[0]
    assert report.allocation.lost <= most
    compared = [one for one in report.allocation.weights if asked in one.bytes]
    fell = {one.name for one in compared if one.chosen != asked}
    # Something stays in the format that was asked for.
    assert len(fell) < len(compared)
    assert fell
    told = {layer.name: layer.reason for layer in report.layers if layer.reason}
    assert all("to keep `max_drift`" in told[name] for name in fell)
    assert {warning.split("`")[1] for warning in report.warnings} >= fell
    assert any("to keep `max_drift`" in message for message, _ in done.heard.logs)
    assert set(Program.load(lenet).parameters()) >= fell


def test_what_cannot_be_kept_is_refused_with_what_is_possible(make_job, lenet):
    job = make_job(lenet, {"inputs": INPUTS, "stages": [mixed(bytes=10)]})
    with pytest.raises(BudgetOutOfReach, match="smallest possible is") as caught:
        compress(job, Recorder())
    assert caught.value.where == "recipe.stages.0.budget.bytes"
    stage = mixed(max_drift=1e-6) | {"formats": [4, 2]}
    job = make_job(lenet, {"inputs": INPUTS, "stages": [stage]})
    with pytest.raises(BudgetOutOfReach, match="still lose") as caught:
        compress(job, Recorder())
    assert caught.value.where == "recipe.stages.0.budget.max_drift"


def test_accuracy_needs_labels(make_job, lenet):
    job = make_job(lenet, {"inputs": INPUTS, "stages": [mixed(max_accuracy_drop=0.1)]})
    with pytest.raises(DatasetInvalid) as caught:
        compress(job, Recorder())
    assert caught.value.where == "recipe.stages.0.budget.max_accuracy_drop"
