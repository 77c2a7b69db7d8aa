"""Fine-tuning: the uploaded program itself is trained, survivors start from their own weights.

The program is switched to training on a copy whose weights move, and evaluated on another copy
that takes over the weights after every epoch; the second is what comes out. Both run without the
TorchScript optimiser, whose first calls profile and whose later calls run rewritten graphs with
other rounding: a resumed process would differ from an undisturbed one in the last bits.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from engine.calling import call, output_tensor, plain_execution
from engine.data.batches import batches, shuffled
from engine.errors import NothingToTrain, TrainingDiverged, UnsupportedOperator
from engine.masks import apply_masks, mask_gradients
from engine.seeds import derive, generator
from engine.torchscript.modes import evaluation_copy, training_copy
from engine.torchscript.program import Program
from engine.training.denormals import flushed_denormals, zero_subnormal
from engine.training.evaluation import Evaluation, evaluate
from engine.training.freezing import frozen_layers, frozen_tensors
from engine.training.judging import EpochJudge
from engine.training.optimizer import build_optimizer, learning_rate, set_rate
from engine.training.penalty import add_penalty, require_norm_scales
from engine.training.run import Trained, TrainingObserver, TrainingRun
from engine.training.sparsity import Moment
from engine.training.state import Best, TrainingState

_REPORT_SECONDS = 1.0


@dataclass
class _Student:
    """What moves while training.

    Attributes:
        masks: on the device.
        scales: names of the BatchNorm scales that a penalty is on.
        best: epoch so far.
    """

    program: Program
    optimizer: torch.optim.Optimizer
    masks: dict[str, Tensor]
    scales: list[str]
    best: Best | None = None


def finetune(
    program: Program,
    run: TrainingRun,
    observer: TrainingObserver,
    *,
    resume: TrainingState | None = None,
) -> Program:
    """`train`, where only the program is asked for."""
    return train(program, run, observer, resume=resume).program


def train(
    program: Program,
    run: TrainingRun,
    observer: TrainingObserver,
    *,
    resume: TrainingState | None = None,
) -> Trained:
    """Train a copy of the program and return it in evaluation mode.

    Raises:
        NothingToTrain: the program has no floating-point parameters, or all are frozen.
        PatternMatchesNothing: a pattern of `freeze` matches no layer.
        TrainingRuleUnmet: a rule finds nothing in the model, or no room in the run.
        TrainingDiverged: the loss became NaN or infinite.
        InputsDoNotFit: the program refuses the batch size.
    """
    options = run.options
    layers = frozen_layers(program, options.freeze, field=run.field)
    frozen = _snapshot(frozen_tensors(program, layers))
    student = training_copy(
        program, batch_norm=options.batch_norm, frozen=layers, dropout=run.dropout
    )
    result = evaluation_copy(student)
    parameters = {name: held for name, held in student.parameters().items() if name not in frozen}
    if not parameters and frozen:
        raise NothingToTrain(
            f"`freeze` {list(options.freeze)} leaves no parameter to train",
            hint="freeze fewer layers",
            where=f"{run.field}.freeze",
        )
    if not parameters:
        raise NothingToTrain(
            "the program has no parameters to train",
            hint="constants that are only added, multiplied or looked up are not trained; leave "
            "fine-tuning out",
            where=run.field,
        )
    # Exporters often switch gradients off; that says nothing about what may be fine-tuned.
    for name, parameter in student.parameters().items():
        parameter.requires_grad_(name in parameters)
    optimizer = (
        build_optimizer(options.optimizer, parameters.values())
        if run.optimizer is None
        else run.optimizer(parameters)
    )
    scales = require_norm_scales(student, options.penalty, field=run.field)
    moving = _Student(student, optimizer, _placed(run.masks, run.device), scales)
    finished = run.epochs.start
    if resume is not None:
        _copy_tensors(resume.tensors, student.attributes())
        optimizer.load_state_dict(resume.optimizer)
        moving.best, finished = resume.best, resume.epoch
        if resume.masks is not None:
            moving.masks = _placed(resume.masks, run.device)
    if run.sparsity is not None:
        run.sparsity.check(run.per_epoch, run.per_epoch * run.options.epochs)
        run.sparsity.recall({} if resume is None else resume.memory, run.device)
    for epoch in range(finished, run.epochs.stop):
        with flushed_denormals(), plain_execution():
            _train_epoch(moving, run, epoch, observer)
        zero_subnormal(student.attributes())
        # Frozen tensors keep their bits, subnormal ones too.
        _copy_tensors(frozen, student.attributes())
        _copy_tensors(student.attributes(), result.attributes())
        moving.best = _validate(result, moving, run, epoch, observer)
        observer.epoch_finished(
            TrainingState(
                epoch=epoch + 1,
                tensors=_snapshot(student.attributes()),
                optimizer=optimizer.state_dict(),
                best=moving.best,
                masks=_kept(moving.masks, run),
                memory={} if run.sparsity is None else run.sparsity.memory(),
            )
        )
    best = moving.best
    chosen = best.tensors if best is not None else student.attributes()
    _copy_tensors(chosen, result.attributes())
    masks = best.masks if best is not None and best.masks is not None else moving.masks
    return Trained(result, {name: mask.cpu() for name, mask in masks.items()})


def _placed(masks: Mapping[str, Tensor], device: str) -> dict[str, Tensor]:
    return {name: mask.to(device) for name, mask in masks.items()}


def _kept(masks: Mapping[str, Tensor], run: TrainingRun) -> dict[str, Tensor] | None:
    """Masks for a checkpoint; None where they hold through the run, and the job has them."""
    return None if run.sparsity is None else {name: mask.cpu() for name, mask in masks.items()}


def _train_epoch(
    student: _Student, run: TrainingRun, epoch: int, observer: TrainingObserver
) -> None:
    options, split = run.options, run.train
    per_epoch = run.per_epoch
    steps = per_epoch * options.epochs
    torch.manual_seed(derive(run.seed, run.purpose, "dropout", epoch))
    order = shuffled(split.samples, generator(run.seed, run.purpose, "shuffle", epoch))
    parameters = student.program.parameters()
    judge = EpochJudge(run)
    reported = time.monotonic()
    for number, batch in enumerate(
        batches(split, options.batch_size, device=run.device, order=order)
    ):
        step = epoch * per_epoch + number
        if not run.includes(step):
            continue
        set_rate(student.optimizer, learning_rate(options, step, steps))
        output = call(student.program.module, batch.inputs, where=f"{run.field}.batch_size")
        loss = judge.loss(output_tensor(output), batch)
        student.optimizer.zero_grad(set_to_none=True)
        _backward(loss, run)
        if not _change_masks(student, run, step, per_epoch):
            add_penalty(parameters, options.penalty, student.scales)
            mask_gradients(parameters, student.masks)
            student.optimizer.step()
        apply_masks(parameters, student.masks)
        if time.monotonic() - reported > _REPORT_SECONDS:
            _check_finite(judge.total, run, epoch)
            observer.progress(step + 1, steps, "steps")
            reported = time.monotonic()
    _check_finite(judge.total, run, epoch)
    observer.progress((epoch + 1) * per_epoch, steps, "steps")
    for name, value in judge.averages().items():
        observer.metric(name, value, epoch + 1)
    observer.metric("lr", learning_rate(options, epoch * per_epoch, steps), epoch + 1)


def _change_masks(student: _Student, run: TrainingRun, step: int, per_epoch: int) -> bool:
    """Let the rule change the masks, by the gradients at hand; whether that was the whole step."""
    if run.sparsity is None:
        return False
    steps = per_epoch * run.options.epochs
    change = run.sparsity.change(
        student.program, student.optimizer, student.masks, Moment(step, per_epoch, steps)
    )
    if change is None:
        return False
    student.masks = _placed(change.masks, run.device)
    return change.instead_of_step


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
    result: Program, student: _Student, run: TrainingRun, epoch: int, observer: TrainingObserver
) -> Best | None:
    best = student.best
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
    per_epoch = run.per_epoch
    if run.sparsity is not None and not run.sparsity.settled((epoch + 1) * per_epoch, per_epoch):
        # Not yet as sparse as the recipe asks: no candidate, however accurate.
        return None
    if best is None or best.beaten_by(measured.accuracy.top1, measured.loss):
        return Best(
            epoch=epoch + 1,
            accuracy=measured.accuracy.top1,
            loss=measured.loss,
            tensors=_snapshot(result.attributes()),
            masks=_kept(student.masks, run),
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
