"""Limits on the metric and on the loss, and what the verdict says of them."""

from __future__ import annotations

import pytest
from secateur.recipe import Recipe
from secateur.report import Latency, Measurement, MetricReport

from engine.pipeline.verdict import broken_constraints, judge

PERPLEXITY = MetricReport(
    name="perplexity", title="perplexity", higher_is_better=False, fraction=False
)
MIOU = MetricReport(name="miou", title="mean IoU", higher_is_better=True, fraction=True)


def measured(loss, parameters=100, **metrics):
    return Measurement(
        file_bytes=parameters, parameters=parameters, nonzero_parameters=parameters,
        macs=parameters, loss=loss, accuracy=None, metrics=metrics,
        latency_ms=[Latency(batch_size=1, p50=1.0, p90=1.0, p99=1.0, runs=5)],
    )  # fmt: skip


def broken(limits, before, after, metric):
    recipe = Recipe.model_validate(
        {"stages": [{"stage": "prune", "allocation": {"amount": 0.5}}], "constraints": limits}
    )
    return [item.field for item in broken_constraints(recipe, before, after, metric)]


@pytest.mark.parametrize(
    ("limit", "after", "breaks"),
    [
        ({"absolute": 0.5}, 12.5, False), ({"absolute": 0.5}, 12.6, True),
        ({"relative": 0.1}, 13.2, False), ({"relative": 0.1}, 13.3, True),
        ({"absolute": 0}, 11.0, False), ({"absolute": 0}, 12.0, False),
        ({"relative": 10}, None, True),
    ],
)  # fmt: skip
def test_a_metric_that_is_better_lower(limit, after, breaks):
    before, found = measured(2.0, perplexity=12.0), measured(2.0, perplexity=after)
    field = ["recipe.constraints.max_metric_drop"] if breaks else []
    assert broken({"max_metric_drop": limit}, before, found, PERPLEXITY) == field


def test_a_metric_that_is_better_higher():
    before = measured(1.0, miou=0.5)
    drop = {"max_metric_drop": {"relative": 0.1}}
    assert broken(drop, before, measured(1.0, miou=0.45), MIOU) == []
    assert broken(drop, before, measured(1.0, miou=0.44), MIOU)
    assert broken(drop, before, measured(1.0, miou=0.9), MIOU) == []


def test_a_loss_that_rises():
    rise = {"max_loss_increase": {"absolute": 0.25}}
    assert broken(rise, measured(1.0), measured(1.25), MIOU) == []
    assert broken(rise, measured(1.0), measured(1.3), MIOU) == [
        "recipe.constraints.max_loss_increase"
    ]
    # Without a dataset nothing is known, and nothing is broken.
    assert broken(rise, measured(None), measured(None), MIOU) == []


def test_the_verdict_is_about_the_metric():
    before = measured(2.5, perplexity=12.1)
    verdict = judge(before, measured(2.6, 60, perplexity=13.46), [], [], decides=PERPLEXITY)
    assert "perplexity 12.1 to 13.46" in verdict.summary
    assert verdict.warnings == [
        "perplexity got worse, 12.1 to 13.46: by more than one per cent of it"
    ]
    assert not verdict.ok
    assert verdict.accuracy_change is None
    assert (verdict.metric, verdict.metric_before, verdict.metric_after) == (
        "perplexity", 12.1, 13.46,
    )  # fmt: skip
    same = judge(before, measured(2.5, 60, perplexity=12.2), [], [], decides=PERPLEXITY)
    assert same.ok
    lost = judge(before, measured(None, 60, perplexity=None), [], [], decides=PERPLEXITY)
    assert "12.1 to no finite number" in lost.summary
    assert not lost.ok
