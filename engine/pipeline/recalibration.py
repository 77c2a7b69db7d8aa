"""A recalibration step of a job."""

from __future__ import annotations

from engine.job import Listener
from engine.pipeline.checkpoint import JobState
from engine.pipeline.setup import Workbench
from engine.pipeline.steps import RecalibrateStep
from engine.torchscript.program import Program
from engine.training.recalibration import Recalibration, recalibrate


def recalibrate_step(
    bench: Workbench, state: JobState, step: RecalibrateStep, listener: Listener
) -> Program:
    """Measure the statistics anew; the program of the state from here on.

    Raises:
        EngineError: see `engine.training.recalibration.recalibrate`.
    """
    dataset = bench.dataset
    if dataset is None:
        raise ValueError("recalibration without a dataset; `prepare` refuses that")
    run = Recalibration(
        split=dataset.require_inputs("train", step.field),
        samples=step.stage.samples,
        batch_size=step.stage.batch_size,
        momentum=step.stage.momentum,
        seed=bench.recipe.seed,
        purpose=step.purpose,
        field=step.field,
        device=bench.job.device,
    )
    state.program = recalibrate(
        state.program, run, lambda done, total: listener.progress(done, total, "batches")
    )
    return state.program
