"""The controls within a job: how long they train, and what is reported of them."""

from __future__ import annotations

from dataclasses import replace

from secateur.report import BaselineReport, Measurement

from engine.lottery.baselines import BaselineStep, epochs_of
from engine.lottery.initialisation import Fresh, reinitialise
from engine.masks import apply_masks
from engine.pipeline.checkpoint import JobState
from engine.pipeline.random_control import randomly_pruned
from engine.pipeline.setup import Workbench
from engine.seeds import derive
from engine.training.run import TrainingRun


def from_scratch(bench: Workbench, state: JobState, step: BaselineStep) -> Fresh:
    """The job's result with new random weights under its masks."""
    seed = derive(bench.recipe.seed, "scratch", step.index)
    fresh = reinitialise(state.program, bench.inputs, seed=seed)
    apply_masks(fresh.program.parameters(), state.masks)
    return fresh


def as_long_as(state: JobState, step: BaselineStep, run: TrainingRun) -> TrainingRun:
    """The run with the epochs of its control."""
    epochs = _epochs(state, step)
    return replace(
        run, options=run.options.model_copy(update={"epochs": epochs, "early_stopping": None})
    )


def note_baseline(
    bench: Workbench, state: JobState, step: BaselineStep, measured: Measurement
) -> None:
    """Write a finished control into the report."""
    random = step.baseline.kind == "random_pruning"
    unknown = [] if random else from_scratch(bench, state, step).by_distribution
    state.baselines.append(
        BaselineReport(
            kind=step.baseline.kind,
            epochs=_epochs(state, step),
            loss=measured.loss,
            accuracy=measured.accuracy,
            metric=measured.deciding,
            drawn_by_distribution=unknown,
            removed=randomly_pruned(bench, state, step).removed if random else {},
            nonzero_parameters=measured.nonzero_parameters,
            macs=measured.macs,
        )
    )


def _epochs(state: JobState, step: BaselineStep) -> int:
    return epochs_of(
        step.baseline,
        step.options.epochs,
        macs_before=state.before.macs,
        macs_after=state.reports[-1].macs,
    )
