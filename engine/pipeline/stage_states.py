"""What a step made of the model, and of the distribution of its weights."""

from __future__ import annotations

from typing import Literal

from secateur.report import Measurement, WeightDistribution

from engine.measure.distribution import add_state
from engine.measure.size import weights_of
from engine.pipeline.checkpoint import JobState
from engine.pipeline.setup import Workbench
from engine.pipeline.steps import PruneStep, QuantizeStep, RecalibrateStep, Step, steps_of


def stage_name(step: Step, removed: int) -> str:
    """What a step is in the report; a training that removes weights counts as pruning."""
    if isinstance(step, RecalibrateStep):
        return "recalibrate"
    if isinstance(step, QuantizeStep):
        return "quantize"
    return "prune" if isinstance(step, PruneStep) or removed else "finetune"


def state_after(
    step: Step, state: JobState, measurement: Measurement
) -> Literal["permanent", "compacted", "finetuned", "recalibrated", "quantized"]:
    """Whether a step wrote zeros into the weights, made the model smaller, trained it, measured
    its statistics anew, or gave its weights fewer bits.

    Args:
        step: that is over.
        state: with the reports of the steps before it.
        measurement: of the model after it.
    """
    if isinstance(step, RecalibrateStep):
        return "recalibrated"
    if isinstance(step, QuantizeStep):
        return "quantized"
    if not isinstance(step, PruneStep):
        return "finetuned"
    before = state.reports[-1] if state.reports else state.before
    shrank = measurement.parameters < before.parameters
    return (
        "permanent" if step.stage.granularity in ("element", "n_m") and not shrank else "compacted"
    )


def distribution_after(
    bench: Workbench, state: JobState, position: int
) -> WeightDistribution | None:
    """The distribution with the weights as they are, where no later step is of the same kind.

    None in a job that goes on from a checkpoint of a version without distributions.
    """
    if state.weights is None:
        return None
    steps = steps_of(bench.recipe, initial_given=bench.job.initial is not None)
    if isinstance(steps[position], RecalibrateStep | QuantizeStep):
        return state.weights  # statistics are no weights, and grids have a table of their own
    step, pruned = steps[position], isinstance(steps[position], PruneStep)
    # Copies and controls leave the job's model as it is.
    later = [
        item
        for item in steps[position + 1 :]
        if isinstance(item, PruneStep)
        or not (item.aside or isinstance(item, RecalibrateStep | QuantizeStep))
    ]
    if any(isinstance(item, PruneStep) == pruned for item in later):
        return state.weights
    kind: Literal["pruned", "retrained"] = "pruned" if pruned else "retrained"
    return add_state(state.weights, kind, step.label, weights_of(state.program))
