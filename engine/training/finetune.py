"""Fine-tuning: the uploaded program itself is trained, survivors start from their own weights.

The program is switched to training on a copy whose weights move, and evaluated on another copy
that takes over the weights after every epoch; the second is what comes out. Both run without the
TorchScript optimiser, whose first calls profile and whose later calls run rewritten graphs with
other rounding: a resumed process would differ from an undisturbed one in the last bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Protocol

import torch
from secateur.recipe import FinetuneOptions
from torch import Tensor

from engine.calling import call, output_tensor, plain_execution
from engine.data.batches import batches, bounds, shuffled
from engine.data.splits import Split
from engine.errors import NothingToTrain, TrainingDiverged, UnsupportedOperator
from engine.masks import apply_masks, mask_gradients
from engine.seeds import derive, generator
from engine.torchscript.modes import evaluation_copy, training_copy
from engine.torchscript.program import Program
from engine.training.denormals import flushed_denormals, zero_subnormal
from engine.training.evaluation import Evaluation, evaluate
from engine.training.objective import correct, cross_entropy
from engine.training.optimizer import build_optimizer, learning_rate, set_rate
from engine.training.state import Best, TrainingState

_REPORT_SECONDS = 1.0


class TrainingObserver(Protocol):
    """Hears how training goes."""

    def progress(self, current: int, total: int, unit: str) -> None:
        """Steps done, of all."""

    def metric(self, name: str, value: float, step: int) -> None:
        """A value after an epoch; `step` counts epochs from 1."""

    def epoch_finished(self, state: TrainingState) -> None:
        """An epoch is complete; the run can resume from `state`."""


@dataclass(frozen=True)
class TrainingRun:
    """One fine-tuning run.

    Attributes:
        options: of the recipe.
        train: split with targets.
        validation: split with targets to choose the best epoch on, or None.
        masks: element masks to hold.
        seed: of the recipe.
        purpose: names this run among the runs of a job, for its seeds.
        field: path of the recipe field, for errors.
        device: where the program lies.
        example_batch: samples in the example inputs.
        optimizer: makes what moves the parameters, by name; None for the optimiser of the options.
        first_step: optimiser steps that count as taken already.
        stop_step: the run ends after this many steps in all; None for the options' epochs.
    """

    options: FinetuneOptions
    train: Split
    validation: Split | None
    masks: Mapping[str, Tensor]
    seed: int
    purpose: str
    field: str
    device: str = "cpu"
    example_batch: int = 1
    optimizer: Callable[[Mapping[str, Tensor]], torch.optim.Optimizer] | None = None
    first_step: int = 0
    stop_step: int | None = None

    @property
    def per_epoch(self) -> int:
        """Optimiser steps of an epoch."""
        return len(bounds(self.train.samples, self.options.batch_size))

    @property
    def epochs(self) -> range:
        """The epochs it takes part in, from 0; the first and the last may be parts of one."""
        end = self.options.epochs
        if self.stop_step is not None:
            end = min(end, -(-self.stop_step // self.per_epoch))
        return range(self.first_step // self.per_epoch, end)

    def includes(self, step: int) -> bool:
        """Whether it takes this step of the whole training."""
        return self.first_step <= step and (self.stop_step is None or step < self.stop_step)


@dataclass(frozen=True)
class _Student:
    """What moves while training."""

    program: Program
    optimizer: torch.optim.Optimizer
    masks: Mapping[str, Tensor]


def finetune(
    program: Program,
    run: TrainingRun,
    observer: TrainingObserver,
    *,
    resume: TrainingState | None = None,
) -> Program:
    """Train a copy of the program and return it in evaluation mode.

    Raises:
        NothingToTrain: the program has no floating-point parameters.
        TrainingDiverged: the loss became NaN or infinite.
        InputsDoNotFit: the program refuses the batch size.
    """
    student = training_copy(program, batch_norm=run.options.batch_norm)
    result = evaluation_copy(student)
    parameters = student.parameters()
    if not parameters:
        raise NothingToTrain(
            "the program has no parameters to train",
            hint="constants that are only added, multiplied or looked up are not trained; leave "
            "fine-tuning out",
            where=run.field,
        )
    # Exporters often switch gradients off; that says nothing about what may be fine-tuned.
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    optimizer = (
        build_optimizer(run.options.optimizer, parameters.values())
        if run.optimizer is None
        else run.optimizer(parameters)
    )
    best: Best | None = None
    finished = run.epochs.start
    if resume is not None:
        _copy_tensors(resume.tensors, student.attributes())
        optimizer.load_state_dict(resume.optimizer)
        best, finished = resume.best, resume.epoch
    masks = {name: mask.to(run.device) for name, mask in run.masks.items()}
    for epoch in range(finished, run.epochs.stop):
        with flushed_denormals(), plain_execution():
            _train_epoch(_Student(student, optimizer, masks), run, epoch, observer)
        zero_subnormal(student.attributes())
        _copy_tensors(student.attributes(), result.attributes())
        best = _validate(result, run, epoch, best, observer)
        observer.epoch_finished(
            TrainingState(
                epoch=epoch + 1,
                tensors=_snapshot(student.attributes()),
                optimizer=optimizer.state_dict(),
                best=best,
            )
        )
    chosen = best.tensors if best is not None else student.attributes()
    _copy_tensors(chosen, result.attributes())
    return result


def _train_epoch(
    student: _Student, run: TrainingRun, epoch: int, observer: TrainingObserver
) -> None:
    options, split = run.options, run.train
    per_epoch = run.per_epoch
    steps = per_epoch * options.epochs
    torch.manual_seed(derive(run.seed, run.purpose, "dropout", epoch))
    order = shuffled(split.samples, generator(run.seed, run.purpose, "shuffle", epoch))
    parameters = student.program.parameters()
    total_loss = torch.zeros((), dtype=torch.float64, device=run.device)
    right = torch.zeros((), dtype=torch.int64, device=run.device)
    counted = 0
    reported = time.monotonic()
    for number, batch in enumerate(
        batches(split, options.batch_size, device=run.device, order=order)
    ):
        step = epoch * per_epoch + number
        if not run.includes(step):
            continue
        set_rate(student.optimizer, learning_rate(options, step, steps))
        output = call(student.program.module, batch.inputs, where=f"{run.field}.batch_size")
        logits, targets = output_tensor(output), batch.targets
        if targets is None:
            raise ValueError("training needs a split with targets")
        loss = cross_entropy(logits, targets, label_smoothing=options.label_smoothing)
        student.optimizer.zero_grad(set_to_none=True)
        _backward(loss, run)
        mask_gradients(parameters, student.masks)
        student.optimizer.step()
        apply_masks(parameters, student.masks)
        total_loss += loss.detach() * targets.numel()
        right += correct(logits.detach(), targets)
        counted += targets.numel()
        if time.monotonic() - reported > _REPORT_SECONDS:
            _check_finite(float(total_loss), run, epoch)
            observer.progress(step + 1, steps, "steps")
            reported = time.monotonic()
    _check_finite(float(total_loss), run, epoch)
    observer.progress((epoch + 1) * per_epoch, steps, "steps")
    observer.metric("train/loss", float(total_loss) / counted, epoch + 1)
    observer.metric("train/accuracy", int(right) / counted, epoch + 1)
    observer.metric("lr", learning_rate(options, epoch * per_epoch, steps), epoch + 1)


def _backward(loss: Tensor, run: TrainingRun) -> None:
    try:
        loss.backward()  # type: ignore[no-untyped-call]
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise UnsupportedOperator(
            f"the program cannot be trained: {str(error).strip().splitlines()[-1]}",
            hint="an operator in it has no gradient; leave fine-tuning out, or export the model "
            "from training code without `detach`, `no_grad` or fused inference operators",
            where=run.field,
        ) from error


def _validate(
    result: Program, run: TrainingRun, epoch: int, best: Best | None, observer: TrainingObserver
) -> Best | None:
    if run.validation is None:
        return None
    measured: Evaluation = evaluate(
        result, run.validation, device=run.device, example_batch=run.example_batch
    )
    _check_finite(measured.loss, run, epoch)
    observer.metric("validation/loss", measured.loss, epoch + 1)
    observer.metric("validation/accuracy", measured.accuracy.top1, epoch + 1)
    if run.options.keep == "last":
        return None
    if best is None or best.beaten_by(measured.accuracy.top1, measured.loss):
        return Best(
            epoch=epoch + 1,
            accuracy=measured.accuracy.top1,
            loss=measured.loss,
            tensors=_snapshot(result.attributes()),
        )
    return best


def _check_finite(loss: float, run: TrainingRun, epoch: int) -> None:
    if not isfinite(loss):
        raise TrainingDiverged(
            f"the loss became {loss} in epoch {epoch + 1} of {run.options.epochs}",
            hint=f"lower the learning rate (it is {run.options.optimizer.lr}), and check the "
            "dataset for NaN",
            where=f"{run.field}.optimizer.lr",
        )


def _snapshot(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def _copy_tensors(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in target.items():
            if name in source:
                tensor.copy_(source[name])
