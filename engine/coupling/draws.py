"""Random numbers drawn in evaluation (dropout that is always on, noise that is added).

A draw of another size is another draw: the compact program could not be compared with the
original, and with the same seed it would give something else. So what is drawn keeps its size,
and then both programs draw the same numbers in the same order.
"""

from __future__ import annotations

import numpy as np

from engine.coupling.tracker import Tracker
from engine.tape import Step, flatten
from engine.torchscript.dependence import is_random

_SWITCHES = ("train", "training")


def freeze_draws(tracker: Tracker) -> None:
    """Keep every tensor that random numbers are drawn for whole."""
    for step in tracker.tape.steps:
        if draws(step):
            for value in [*step.tensors(), *flatten(step.outputs)]:
                for labels in tracker.merged_labels(value):
                    if labels is not None:
                        tracker.freeze(np.ravel(labels), step, "random numbers are drawn for it")


def draws(step: Step) -> bool:
    """Whether this step drew random numbers."""
    operator = step.instruction.operator
    if operator is None or not is_random(operator):
        return False
    chance = next(
        (step.argument(name) for name in ("dropout_p", "dropout") if name in operator.arguments),
        None,
    )
    switch = next((step.argument(name) for name in _SWITCHES if name in operator.arguments), None)
    return switch is not False and chance != 0.0
