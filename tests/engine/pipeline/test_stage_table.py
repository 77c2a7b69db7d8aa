"""The rows of the report: original, masked, made permanent, compacted, fine-tuned."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.torchscript.program import Program
from engine.torchscript.slim_archive import slimmed
from tests.engine.pipeline.conftest import prune

TRAINED = {"kind": "iterative", "rounds": 2, "finetune": {"epochs": 1}}


def test_masks_beside_weights_make_the_file_bigger_and_permanent_zeros_do_not(
    run, lenet, little_data
):
    stages = [
        prune(granularity="element", allocation={"amount": 0.8}),
        prune(),
        {"stage": "finetune", "epochs": 1},
    ]
    report = run(lenet, {"stages": stages}, little_data).result.report
    original = report.before
    permanent, compacted, trained = report.stages
    masked = permanent.masked

    assert [stage.state for stage in report.stages] == ["permanent", "compacted", "finetuned"]
    model = torch.jit.load(lenet)
    weights = [p for p in model.parameters() if p.dim() >= 2]
    extra = sum(4 * weight.numel() for weight in weights)
    assert masked.form == "mask_beside_weight"
    assert masked.file_bytes > len(slimmed(Path(lenet).read_bytes())) + extra
    assert masked.memory_bytes == original.memory_bytes + extra
    assert masked.parameters == original.parameters
    assert masked.nonzero_parameters == original.nonzero_parameters
    assert masked.macs == original.macs
    # A mask computes what zeros compute.
    assert masked.accuracy == permanent.accuracy
    assert masked.loss == pytest.approx(permanent.loss, rel=1e-5)
    assert masked.elapsed_ms > 0

    # The engine writes a program inlined, which is some code more: but for that, not a byte.
    assert permanent.file_bytes == len(slimmed(Program.load(lenet).to_bytes()))
    assert permanent.file_bytes == pytest.approx(len(slimmed(Path(lenet).read_bytes())), rel=0.02)
    assert permanent.memory_bytes == original.memory_bytes
    assert permanent.nonzero_parameters < 0.25 * original.nonzero_parameters

    zeroed = compacted.masked
    assert zeroed.form == "zeroed_slices"
    assert zeroed.file_bytes == pytest.approx(permanent.file_bytes, rel=0.02)
    assert zeroed.parameters == original.parameters
    assert zeroed.nonzero_parameters == compacted.nonzero_parameters
    assert zeroed.accuracy == compacted.accuracy
    assert zeroed.loss == pytest.approx(compacted.loss, rel=1e-4)
    assert compacted.file_bytes < 0.4 * permanent.file_bytes
    assert compacted.memory_bytes == 4 * compacted.parameters
    assert trained.masked is None
    assert all(row.evaluation_ms > 0 for row in (original, masked, *report.stages))


def test_curve_and_distributions_of_an_iterative_job(run, lenet, little_data):
    stage = prune(granularity="element", allocation={"amount": 0.8}, schedule=TRAINED)
    report = run(lenet, {"stages": [stage]}, little_data).result.report
    first, trained_first, second, trained_second = report.stages
    assert first.masked is None
    assert second.masked is not None
    assert [point.label for point in report.curve] == ["prune round 1 of 2", "prune round 2 of 2"]
    assert [point.pruned for point in report.curve] == [first.accuracy, second.accuracy]
    assert [point.retrained for point in report.curve] == [
        trained_first.accuracy, trained_second.accuracy,
    ]  # fmt: skip
    assert report.curve[1].kept_fraction == second.nonzero_parameters / report.before.parameters

    # Each layer keeps a fifth of its weights; dense kernels multiply the zeros as well.
    assert report.verdict.theoretical_speedup == 1
    assert report.verdict.nonzero_theoretical_speedup == pytest.approx(5, rel=0.01)

    states = report.weights.states
    assert [state.state for state in states] == ["original", "pruned", "retrained"]
    assert states[1].label == "prune round 2 of 2"
    gone = sum(round(0.8 * row.shape_before[0] * _rest(row)) for row in report.layers)
    for state in states:
        assert [layer.name for layer in state.layers] == [row.name for row in report.layers]
        elements = sum(state.total.counts) + state.total.zeros
        assert elements == sum(row.shape_before[0] * _rest(row) for row in report.layers)
        assert state.total.zeros == (0 if state.state == "original" else gone)
    assert states[1].total.counts != states[2].total.counts


def _rest(row):
    size = 1
    for side in row.shape_before[1:]:
        size *= side
    return size


def test_no_dataset_leaves_accuracies_out(run, lenet):
    report = run(lenet, {"inputs": [{"shape": [1, 1, 8, 8]}], "stages": [prune()]}).result.report
    (stage,) = report.stages
    assert stage.masked.accuracy is stage.masked.evaluation_ms is None
    assert stage.masked.file_bytes > stage.file_bytes
    assert [(point.pruned, point.retrained) for point in report.curve] == [(None, None)]
