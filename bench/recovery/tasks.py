"""The tasks of the benchmark, in the order of the page."""

from __future__ import annotations

from bench.recovery import digits, language, regression, segmentation
from bench.recovery.task import Task
from bench.recovery.variants import COOL, LONG, MAIN, STUDY, Variant

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        digits.RESNET,
        digits.VGG,
        digits.VIT,
        language.TASK,
        segmentation.TASK,
        regression.TASK,
    )
}
FURTHER: dict[str, tuple[Variant, ...]] = {
    digits.RESNET.name: (*STUDY, COOL),
    regression.TASK.name: STUDY,
    segmentation.TASK.name: (LONG, COOL),
}
"""Tried on these besides: what the advice of the page rests on."""


def variants_of(task: Task) -> tuple[Variant, ...]:
    """What is tried on a task."""
    return MAIN + FURTHER.get(task.name, ())
