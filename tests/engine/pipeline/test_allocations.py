"""Jobs whose allocation differs from layer to layer, and n:m patterns, through to the report."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from secateur.recipe import PruneStage

from engine.errors import NothingPruned, PatternMatchesNothing
from engine.pipeline.checkpoint import load_checkpoint
from engine.pipeline.compress import compress
from engine.pipeline.report import fingerprint_of
from engine.planning import plan
from engine.torchscript.program import Program
from tests.engine.digits import Recorder
from tests.engine.pipeline.conftest import prune

FAST = {"batch_sizes": [1], "runs": 5}
IN_ROUNDS = {"kind": "iterative", "rounds": 3, "finetune": {"epochs": 1}}
SHAPE = [{"shape": [4, 1, 8, 8]}]


def widths(report):
    return {
        item.name.removesuffix(".weight"): (item.shape_before[0], item.shape_after[0])
        for item in report.layers
        if len(item.shape_before) > 1
    }


def test_layers_lose_their_own_fractions(run, lenet):
    stage = prune(allocation={"layers": {"conv1": 0.5, "fc*": 0.25}})
    done = run(lenet, {"inputs": SHAPE, "stages": [stage], "measure": FAST})
    found = widths(done.result.report)
    assert done.result.report.certificate.passed
    for name, (before, after) in found.items():
        share = {"conv1": 0.5, "fc1": 0.25, "fc2": 0.25}.get(name, 0)
        assert before - after == int(before * share + 0.5), name


BY_LAYER = [
    {"layers": {"conv*": 0.4}, "amount": 0.6},
    {"threshold": 0.8},
    {"amount": 0.5, "distribution": "erdos_renyi"},
]
SCANNED = {"amount": 0.5, "distribution": "sensitivity"}


@pytest.mark.parametrize(
    "allocation", [*BY_LAYER, SCANNED], ids=["layers", "threshold", "erk", "sensitivity"]
)
def test_rounds_with_training_between_remove_what_one_shot_does(
    run, lenet, little_data, allocation
):
    once, rounds = (
        run(lenet, {"stages": [stage], "measure": FAST}, little_data).result.report
        for stage in (
            prune(allocation=allocation),
            prune(allocation=allocation, schedule=IN_ROUNDS),
        )
    )
    assert widths(once) == widths(rounds)
    assert sum(stage.removed for stage in rounds.stages) == once.stages[0].removed > 0
    assert rounds.certificate.passed


@pytest.mark.parametrize(
    "allocation", [*BY_LAYER, {"quality": 0.8}], ids=["layers", "threshold", "erk", "quality"]
)
def test_rounds_of_elements_remove_what_one_shot_does(run, lenet, little_data, allocation):
    once, rounds = (
        run(lenet, {"stages": [stage], "measure": FAST}, little_data).result.report
        for stage in (
            prune(granularity="element", allocation=allocation),
            prune(granularity="element", allocation=allocation, schedule=IN_ROUNDS),
        )
    )
    assert [item.nonzero_after for item in once.layers] == [
        item.nonzero_after for item in rounds.layers
    ]
    assert sum(stage.removed for stage in rounds.stages) == once.stages[0].removed > 0


def test_a_resumed_job_keeps_the_totals_of_its_first_round(
    make_job, run, lenet, little_data, tmp_path
):
    stage = prune(allocation={"threshold": 0.8}, schedule=IN_ROUNDS)
    recipe = {"stages": [stage], "measure": FAST}
    whole = run(lenet, recipe, little_data).result.report
    kept = tmp_path / "kept"
    kept.mkdir()
    job = make_job(lenet, recipe, little_data)
    with pytest.raises(KeyboardInterrupt):
        compress(job, Recorder(stop_at=3, keep=kept))
    state = load_checkpoint(kept / "3.pt", Program.load(lenet), fingerprint=fingerprint_of(job))
    assert sum(state.totals[0].values()) == sum(item.removed for item in whole.stages)
    resumed = run(lenet, recipe, little_data, checkpoint=kept / "3.pt").result.report
    assert widths(resumed) == widths(whole)


def test_a_pattern_without_a_layer_is_refused_before_any_work(run, lenet):
    stage = prune(allocation={"layers": {"conv*": 0.5, "cnov2": 0.5}})
    with pytest.raises(PatternMatchesNothing, match="`cnov2` matches no layer") as refused:
        run(lenet, {"inputs": SHAPE, "stages": [stage]})
    assert refused.value.where == "recipe.stages.0.allocation.layers.1"
    assert "conv2" in refused.value.hint


def test_a_threshold_below_or_above_everything_says_so(run, lenet):
    with pytest.raises(NothingPruned, match="no channel scores below") as low:
        run(lenet, {"inputs": SHAPE, "stages": [prune(allocation={"threshold": 1e-6})]})
    assert low.value.where == "recipe.stages.0.allocation.threshold"
    with pytest.raises(NothingPruned, match=r"leave the layer `\w+` empty"):
        run(lenet, {"inputs": SHAPE, "stages": [prune(allocation={"threshold": 100.0})]})


def n_m(**changes):
    return {"stage": "prune", "granularity": "n_m", "n": 2, "m": 4} | changes


def test_a_pattern_holds_in_the_final_file_after_training(run, lenet, little_data):
    adamw = {"kind": "adamw", "lr": 0.01, "weight_decay": 0.1}
    done = run(
        lenet,
        {"stages": [n_m(), {"stage": "finetune", "optimizer": adamw}], "measure": FAST},
        little_data,
    )
    report = done.result.report
    assert report.patterns
    assert all(item.holds and (item.n, item.m) == (2, 4) for item in report.patterns)
    weights = dict(torch.jit.load(done.folder / "compact.pt").named_parameters())
    for item in report.patterns:
        rows = weights[item.weight].movedim(item.dimension, -1).reshape(-1, 4)
        assert ((rows != 0).sum(1) <= 2).all()
    masks = load_file(done.folder / "masks.safetensors")
    assert set(masks) == {item.weight for item in report.patterns}
    left_whole = [item for item in report.frozen if item.op == "2:4"]
    assert [item.layer for item in left_whole] == ["conv1"]
    assert not any("pattern" in text for text in report.verdict.warnings)


def test_channels_removed_after_the_pattern_break_it_and_the_verdict_says_so(run, lenet):
    report = run(
        lenet, {"inputs": SHAPE, "stages": [n_m(), prune()], "measure": FAST}
    ).result.report
    assert not all(item.holds for item in report.patterns)
    assert any("the pattern 2:4 does not hold" in text for text in report.verdict.warnings)


def test_plans_of_patterns(make_job, lenet):
    got = plan(make_job(lenet, {"inputs": SHAPE, "stages": [n_m(n=1)]}))
    assert got["granularity"] == "n_m"
    assert got["groups"]
    assert all(item["removed"] * 4 == item["weights"] * 3 for item in got["groups"])
    assert got["frozen"][0]["layer"] == "conv1"


def test_the_recipe_of_a_result_is_a_recipe_again():
    stage = PruneStage.model_validate(n_m())
    assert PruneStage.model_validate(stage.model_dump(mode="json")) == stage


def test_a_scan_shares_the_amount_out_by_drift_and_logs_it(run, lenet, little_data):
    recipe = {"stages": [prune(allocation=SCANNED)], "measure": FAST}
    done = run(lenet, recipe, little_data)
    told = next(data for message, data in done.heard.logs if "drift of the outputs" in message)
    assert set(told["drift"]) == set(told["totals"])
    assert all(len(curve) == 3 and min(curve) >= 0 for curve in told["drift"].values())
    found = widths(done.result.report)
    assert {name: found[name][0] - found[name][1] for name in told["totals"]} == told["totals"]
    sizes = {name: found[name][0] for name in told["totals"]}
    assert sum(told["totals"].values()) == (sum(sizes.values()) + 1) // 2
    shares = {name: count / sizes[name] for name, count in told["totals"].items()}
    at_half = {name: curve[1] for name, curve in told["drift"].items()}
    # What drifts most at one half loses the smallest share.
    assert min(shares, key=shares.get) == max(at_half, key=at_half.get)
    assert done.result.report.certificate.passed
