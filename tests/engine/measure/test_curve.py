from __future__ import annotations

from secateur.report import Accuracy, Measurement, StageReport

from engine.measure.curve import accuracy_curve


def accuracy(correct):
    return None if correct is None else Accuracy(correct=correct, total=50, top1=correct / 50)


def step(stage, label, nonzero, correct, index=0):
    return StageReport(
        stage=stage, label=label, stage_index=index, elapsed_ms=1.0, file_bytes=1, parameters=200,
        nonzero_parameters=nonzero, macs=1, loss=None, accuracy=accuracy(correct), latency_ms=[],
    )  # fmt: skip


BEFORE = Measurement(
    file_bytes=1, parameters=200, nonzero_parameters=180, macs=1, loss=None, accuracy=accuracy(49),
    latency_ms=[],
)  # fmt: skip


def test_points_by_hand():
    stages = [
        step("finetune", "before any pruning", 180, 49),
        step("prune", "prune round 1 of 2", 100, 30),
        step("finetune", "finetune after round 1 of 2", 100, 48),
        step("prune", "prune round 2 of 2", 50, 20),
        step("finetune", "finetune after round 2 of 2", 50, 40),
        step("finetune", "finetune", 50, 45, index=1),
        step("prune", "prune", 10, 5, index=2),
    ]
    points = accuracy_curve(BEFORE, stages)
    assert [point.kept_fraction for point in points] == [0.5, 0.25, 0.05]
    assert [point.pruned.correct for point in points] == [30, 20, 5]
    assert [point.retrained and point.retrained.correct for point in points] == [48, 45, None]
    assert [point.stage_index for point in points] == [0, 0, 2]


def test_without_a_dataset_the_points_have_sizes_only():
    (point,) = accuracy_curve(BEFORE, [step("prune", "prune", 100, None)])
    assert (point.kept_fraction, point.pruned, point.retrained) == (0.5, None, None)
    assert accuracy_curve(BEFORE, []) == []
