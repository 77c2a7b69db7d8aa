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

import torch
from torch import Tensor

from engine.calling import call, output_tensor, plain_execution
from engine.data.batches import batches, shuffled
from engine.errors import NothingToTrain, UnsupportedOperator
from engine.masks import apply_masks, mask_gradients
from engine.seeds import derive, generator
from engine.torchscript.modes import evaluation_copy, training_copy
from engine.torchscript.program import Program
from engine.training.accumulation import micro_batches
from engine.training.averaging import WeightAverage, averaged_tensors, averaging_of
from engine.training.clipping import clip_gradients
from engine.training.denormals import flushed_denormals, zero_subnormal
from engine.training.freezing import frozen_layers, frozen_tensors
from engine.training.objective import correct, cross_entropy
from engine.training.optimizer import build_optimizer, learning_rate, set_rate
from engine.training.penalty import add_penalty, require_norm_scales
from engine.training.run import Trained, TrainingObserver, TrainingRun
from engine.training.sparsity import Moment
from engine.training.state import Best, TrainingState, copy_tensors, snapshot
from engine.training.validation import better, check_finite, settled, validate

_REPORT_SECONDS = 1.0


@dataclass
class _Student:
    """What moves while training.

    Attributes:
        masks: on the device.
        scales: names of the BatchNorm scales that a penalty is on.
        average: of the weights, where the recipe asks for one.
        best: epoch so far.
    """

    program: Program
    optimizer: torch.optim.Optimizer
    masks: dict[str, Tensor]
    scales: list[str]
    average: WeightAverage | None
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
    frozen = snapshot(frozen_tensors(program, layers))
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
    weights = averaged_tensors(student, frozen)
    average = averaging_of(options.ema, weights, end=run.epochs.stop, field=run.field)
    moving = _Student(student, optimizer, _placed(run.masks, run.device), scales, average)
    finished = run.epochs.start
    if resume is not None:
        copy_tensors(resume.tensors, student.attributes())
        optimizer.load_state_dict(resume.optimizer)
        moving.best, finished = resume.best, resume.epoch
        if resume.masks is not None:
            moving.masks = _placed(resume.masks, run.device)
        if average is not None and resume.average is not None:
            average.recall(resume.average, moving.masks, run.device)
    if run.sparsity is not None:
        run.sparsity.check(run.per_epoch, run.per_epoch * run.options.epochs)
        run.sparsity.recall({} if resume is None else resume.memory, run.device)
    for epoch in range(finished, run.epochs.stop):
        with flushed_denormals(), plain_execution():
            _train_epoch(moving, run, epoch, observer)
        zero_subnormal(student.attributes())
        # Frozen tensors keep their bits, subnormal ones too.
        copy_tensors(frozen, student.attributes())
        _show(moving, result, frozen)
        measured = validate(result, run, epoch, observer)
        if measured is not None and options.keep == "best" and settled(run, average, epoch):
            masks = _kept(moving.masks, run)
            moving.best = better(moving.best, result, masks, measured, epoch)
        observer.epoch_finished(
            TrainingState(
                epoch=epoch + 1,
                tensors=snapshot(student.attributes()),
                optimizer=optimizer.state_dict(),
                best=moving.best,
                masks=_kept(moving.masks, run),
                memory={} if run.sparsity is None else run.sparsity.memory(),
                average=None if average is None else average.memory(),
            )
        )
    best = moving.best
    if best is None:
        _show(moving, result, frozen)
    else:
        copy_tensors(best.tensors, result.attributes())
    masks = best.masks if best is not None and best.masks is not None else moving.masks
    return Trained(result, {name: mask.cpu() for name, mask in masks.items()})


def _show(moving: _Student, result: Program, frozen: Mapping[str, Tensor]) -> None:
    """Give the result the weights of the student, or their average where there is one."""
    copy_tensors(moving.program.attributes(), result.attributes())
    if moving.average is not None and moving.average.steps:
        copy_tensors(moving.average.tensors, result.attributes())
        zero_subnormal(result.attributes())
        copy_tensors(frozen, result.attributes())


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
    total_loss = torch.zeros((), dtype=torch.float64, device=run.device)
    right = torch.zeros((), dtype=torch.int64, device=run.device)
    counted = 0
    reported = time.monotonic()
    micro = micro_batches(options, split.samples)
    made = batches(split, options.batch_size, device=run.device, order=order)
    for part, batch in zip(micro, made, strict=True):
        step = epoch * per_epoch + part.step
        if not run.includes(step):
            continue
        if part.first:
            student.optimizer.zero_grad(set_to_none=True)
        output = call(student.program.module, batch.inputs, where=f"{run.field}.batch_size")
        logits, targets = output_tensor(output), batch.targets
        if targets is None:
            raise ValueError("training needs a split with targets")
        loss = cross_entropy(logits, targets, label_smoothing=options.label_smoothing)
        _backward(loss * part.share, run)
        if part.last:
            _take_step(student, run, step)
        total_loss += loss.detach() * targets.numel()
        right += correct(logits.detach(), targets)
        counted += targets.numel()
        if time.monotonic() - reported > _REPORT_SECONDS:
            check_finite(float(total_loss), run, epoch)
            observer.progress(step + 1, steps, "steps")
            reported = time.monotonic()
    check_finite(float(total_loss), run, epoch)
    observer.progress((epoch + 1) * per_epoch, steps, "steps")
    observer.metric("train/loss", float(total_loss) / counted, epoch + 1)
    observer.metric("train/accuracy", int(right) / counted, epoch + 1)
    observer.metric("lr", learning_rate(options, epoch * per_epoch, steps), epoch + 1)


def _take_step(student: _Student, run: TrainingRun, step: int) -> None:
    """Move the parameters by the gradients at hand, under masks that may change first."""
    options, parameters = run.options, student.program.parameters()
    set_rate(student.optimizer, learning_rate(options, step, run.per_epoch * options.epochs))
    if not _change_masks(student, run, step, run.per_epoch):
        add_penalty(parameters, options.penalty, student.scales)
        mask_gradients(parameters, student.masks)
        clip_gradients(parameters.values(), norm=options.clip_norm, value=options.clip_value)
        student.optimizer.step()
    apply_masks(parameters, student.masks)
    average = student.average
    if average is not None and step >= average.options.from_epoch * run.per_epoch:
        average.add(student.masks)


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
