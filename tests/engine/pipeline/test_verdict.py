from __future__ import annotations

import pytest
from secateur.recipe import Recipe
from secateur.report import Accuracy, Certificate, Latency, Measurement

from engine.pipeline.prune import merge_certificates
from engine.pipeline.steps import FinetuneStep, PruneStep, steps_of
from engine.pipeline.verdict import broken_constraints, judge
from tests.engine.pipeline.conftest import prune


def measured(parameters, macs, correct, p50, *, nonzero=None, file_bytes=1000):
    accuracy = Accuracy(correct=correct, total=200, top1=correct / 200)
    return Measurement(
        file_bytes=file_bytes,
        parameters=parameters,
        nonzero_parameters=parameters if nonzero is None else nonzero,
        macs=macs,
        loss=0.1,
        accuracy=accuracy,
        latency_ms=[
            Latency(batch_size=size, p50=value, p90=value, p99=value, runs=5)
            for size, value in p50.items()
        ],
    )


BEFORE = measured(1000, 500, 190, {1: 2.0, 32: 8.0})


def verdict(after, remarks=()):
    return judge(BEFORE, after, [], remarks)


def test_ratios_by_hand():
    got = verdict(measured(250, 100, 189, {1: 1.0, 32: 2.0}, file_bytes=400))
    assert got.ok
    assert got.warnings == []
    assert got.compression_ratio == 4
    assert got.nonzero_theoretical_speedup is None
    after = measured(250, 100, 189, {1: 1.0, 32: 2.0})
    assert judge(BEFORE, after, [], [], nonzero_macs=40).nonzero_theoretical_speedup == 12.5
    assert got.file_ratio == 2.5
    assert got.theoretical_speedup == 5
    assert got.measured_speedup == {"1": 2.0, "32": 4.0}
    assert got.accuracy_change == pytest.approx(-0.005)
    assert "MACs -80%" in got.summary
    assert "top-1 95.00% to 94.50% (-0.50%)" in got.summary


def test_slower_is_said_loudly_and_not_ok():
    got = verdict(measured(250, 100, 190, {1: 3.0, 32: 2.0}))
    assert not got.ok
    assert got.warnings[0].startswith("SLOWER than the original at batch 1: 1.50 times")


def test_noise_is_not_slower():
    assert verdict(measured(250, 100, 190, {1: 2.05, 32: 8.0})).ok


def test_a_lost_point_is_not_ok():
    got = verdict(measured(250, 100, 187, {1: 1.0, 32: 2.0}))
    assert not got.ok
    assert "fell by 1.50%" in got.warnings[0]


def test_nothing_smaller_is_not_ok():
    assert not verdict(measured(1000, 500, 190, {1: 1.0, 32: 2.0})).ok


def test_zeroed_weights_count_as_compression_with_a_remark():
    got = verdict(measured(1000, 500, 190, {1: 2.0, 32: 8.0}, nonzero=100), ["from earlier"])
    assert got.ok
    assert got.compression_ratio == 10
    assert "dense kernels do not skip" in got.warnings[0]
    assert got.warnings[1] == "from earlier"


def recipe(**constraints):
    return Recipe.model_validate({"stages": [prune()], "constraints": constraints})


def test_constraints_at_their_limits():
    after = measured(250, 100, 188, {1: 1.0, 32: 2.0})
    assert broken_constraints(recipe(max_accuracy_drop=0.01, min_speedup=2.0), BEFORE, after) == []
    drop, speed = broken_constraints(
        recipe(max_accuracy_drop=0.0099, min_speedup=2.01), BEFORE, after
    )
    assert drop.field == "recipe.constraints.max_accuracy_drop"
    assert speed.field == "recipe.constraints.min_speedup"
    got = judge(BEFORE, after, [drop, speed], [])
    assert not got.ok
    assert not got.constraints_met


def certificate(**changes):
    base = {
        "passed": True,
        "kind": "exact",
        "max_relative_error": 1e-16,
        "mixed_by": [],
        "batch_sizes": [1, 3],
        "reloaded_in_fresh_process": False,
    }
    return Certificate.model_validate(base | changes)


def test_a_merged_certificate_is_as_bad_as_its_worst_part():
    merged = merge_certificates(
        [
            certificate(),
            certificate(
                kind="approximate",
                max_relative_error=0.2,
                restricted_error=1e-15,
                mixed_by=["norm (aten::layer_norm)"],
                batch_sizes=[2],
            ),
        ],
        masked=True,
    )
    assert merged.passed
    assert merged.kind == "approximate"
    assert merged.max_relative_error == 0.2
    assert merged.restricted_error == 1e-15
    assert merged.mixed_by == ["norm (aten::layer_norm)"]
    assert merged.batch_sizes == [1, 2, 3]
    assert not merge_certificates([certificate(), certificate(passed=False)], masked=True).passed


def test_steps_of_a_recipe():
    schedule = {"kind": "iterative", "rounds": 2, "finetune": {"epochs": 1}}
    bare = {"kind": "iterative", "rounds": 2, "finetune": None}
    steps = steps_of(
        Recipe.model_validate(
            {
                "stages": [
                    prune(schedule=schedule),
                    prune(schedule=bare),
                    prune(),
                    {"stage": "finetune"},
                ]
            }
        )
    )
    assert [(type(step), step.field, step.label, step.shown_round) for step in steps] == [
        (PruneStep, "recipe.stages.0", "prune round 1 of 2", 1),
        (FinetuneStep, "recipe.stages.0.schedule.finetune", "finetune after round 1 of 2", 1),
        (PruneStep, "recipe.stages.0", "prune round 2 of 2", 2),
        (FinetuneStep, "recipe.stages.0.schedule.finetune", "finetune after round 2 of 2", 2),
        (PruneStep, "recipe.stages.1", "prune round 1 of 2", 1),
        (PruneStep, "recipe.stages.1", "prune round 2 of 2", 2),
        (PruneStep, "recipe.stages.2", "prune", None),
        (FinetuneStep, "recipe.stages.3", "finetune", None),
    ]
