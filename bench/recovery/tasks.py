"""The tasks of the benchmark, in the order of the page."""

from __future__ import annotations

from bench.recovery import digits, language, regression, segmentation
from bench.recovery.task import Task
from bench.recovery.variants import COOL, MAIN, STUDY, Variant

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
STUDIED = (digits.RESNET.name, regression.TASK.name)
"""Tasks on which the further variants are tried."""
COOLED = (digits.RESNET.name, segmentation.TASK.name)
"""Tasks on which another temperature is tried."""


def variants_of(task: Task) -> tuple[Variant, ...]:
    """What is tried on a task."""
    found = MAIN + STUDY if task.name in STUDIED else MAIN
    return (*found, COOL) if task.name in COOLED else found
