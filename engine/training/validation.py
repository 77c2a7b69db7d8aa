"""What the validation split says of an epoch, and whether its weights are the best so far."""

from __future__ import annotations

from math import isfinite

from engine.errors import TrainingDiverged
from engine.torchscript.program import Program
from engine.training.averaging import WeightAverage
from engine.training.evaluation import Evaluation, evaluate
from engine.training.run import TrainingObserver, TrainingRun


def validate(
    result: Program, run: TrainingRun, epoch: int, observer: TrainingObserver
) -> Evaluation | None:
    """Loss and metrics after an epoch (from 0), told to the observer; None without a split.

    Raises:
        TrainingDiverged: the loss is NaN or infinite.
    """
    if run.validation is None:
        return None
    measured = evaluate(
        result,
        run.validation,
        device=run.device,
        example_batch=run.example_batch,
        objective=run.objective,
    )
    if measured.reduced_to is not None:
        observer.remark(
            f"out of memory while validating epoch {epoch + 1}: it took parts of "
            f"{measured.reduced_to} samples"
        )
    check_finite(measured.loss, run, epoch)
    observer.metric("validation/loss", measured.loss, epoch + 1)
    for name, value in measured.metrics.items():
        if name != "loss":
            observer.metric(f"validation/{name}", value, epoch + 1)
    return measured


def may_be_kept(run: TrainingRun, average: WeightAverage | None, epoch: int) -> bool:
    """Whether what an epoch leaves may be the result.

    While masks still change it is not yet as sparse as the recipe asks, and before averaging
    begins it is not averaged: no candidate, however accurate.
    """
    if average is not None and not average.steps:
        return False
    per_epoch = run.per_epoch
    return run.sparsity is None or run.sparsity.settled((epoch + 1) * per_epoch, per_epoch)


def check_finite(loss: float, run: TrainingRun, epoch: int) -> None:
    """Refuse to go on from a loss that is not a number.

    Raises:
        TrainingDiverged: it is NaN or infinite.
    """
    if not isfinite(loss):
        raise TrainingDiverged(
            f"the loss became {loss} in epoch {epoch + 1} of {run.options.epochs}",
            hint=f"lower the learning rate (it is {run.options.optimizer.lr}), and check the "
            "dataset for NaN",
            where=f"{run.field}.optimizer.lr",
        )
