"""Fine-tuning: the uploaded program itself is trained, survivors start from their own weights.

The program is switched to training on a copy whose weights move, and evaluated on another copy
that takes over the weights after every epoch; the second is what comes out. Both run without the
TorchScript optimiser, whose first calls profile and whose later calls run rewritten graphs with
other rounding: a resumed process would differ from an undisturbed one in the last bits.
"""

from __future__ import annotations

import time
from dataclasses import replace

import torch
from torch import Tensor

from engine.calling import call, output_tensor, plain_execution
from engine.data.batches import batches, shuffled
from engine.errors import UnsupportedOperator
from engine.masks import apply_masks, mask_gradients
from engine.seeds import derive, generator
from engine.torchscript.program import Program
from engine.training.accumulation import micro_batches
from engine.training.clipping import clip_gradients
from engine.training.denormals import flushed_denormals
from engine.training.judging import EpochJudge
from engine.training.optimizer import learning_rate, set_rate
from engine.training.penalty import add_penalty
from engine.training.recording import Recording
from engine.training.run import Trained, TrainingObserver, TrainingRun
from engine.training.sparsity import Moment
from engine.training.state import TrainingState
from engine.training.student import Student, begin, placed
from engine.training.validation import check_finite, may_be_kept, validate

_REPORT_SECONDS = 1.0


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
    student = begin(program, run)
    recording = Recording(run, observer)
    if resume is not None:
        student.recall(resume, run)
        recording.recall(resume.recording)
    if run.sparsity is not None:
        run.sparsity.check(run.per_epoch, run.per_epoch * run.options.epochs)
        run.sparsity.recall({} if resume is None else resume.memory, run.device)
    for epoch in range(student.finished, run.epochs.stop):
        if student.patience is not None and student.patience.exhausted:
            break
        with flushed_denormals(), plain_execution():
            _train_epoch(student, run, epoch, recording)
        student.settle()
        measured = validate(student.result, run, epoch, recording)
        if measured is not None and may_be_kept(run, student.average, epoch):
            student.judge(measured, run, epoch)
        student.finished = epoch + 1
        recording.epoch_finished(replace(student.state(run), recording=recording.to_plain()))
    return replace(student.trained(run), recording=recording)


def _train_epoch(student: Student, run: TrainingRun, epoch: int, recording: Recording) -> None:
    options, split = run.options, run.train
    per_epoch = run.per_epoch
    steps = per_epoch * options.epochs
    torch.manual_seed(derive(run.seed, run.purpose, "dropout", epoch))
    order = shuffled(split.samples, generator(run.seed, run.purpose, "shuffle", epoch))
    judge = EpochJudge(run)
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
        loss = judge.loss(output_tensor(output), batch)
        recording.batch(loss, batch.size)
        _backward(loss * part.share, run)
        if part.last:
            rate, norm = _take_step(student, run, step)
            recording.step(step, lr=rate, norm=norm)
        if time.monotonic() - reported > _REPORT_SECONDS:
            check_finite(judge.total, run, epoch)
            recording.progress(step + 1, steps, "steps")
            reported = time.monotonic()
    recording.pause()
    check_finite(judge.total, run, epoch)
    recording.progress((epoch + 1) * per_epoch, steps, "steps")
    for name, value in judge.averages().items():
        recording.metric(name, value, epoch + 1)
    recording.metric("lr", learning_rate(options, epoch * per_epoch, steps), epoch + 1)


def _take_step(student: Student, run: TrainingRun, step: int) -> tuple[float, Tensor | None]:
    """Move the parameters by the gradients at hand, under masks that may change first.

    Returns:
        The learning rate, and the norm of the gradients where clipping computed it.
    """
    options, parameters, norm = run.options, student.program.parameters(), None
    rate = learning_rate(options, step, run.per_epoch * options.epochs)
    set_rate(student.optimizer, rate)
    if not _change_masks(student, run, step, run.per_epoch):
        add_penalty(parameters, options.penalty, student.scales)
        mask_gradients(parameters, student.masks)
        norm = clip_gradients(parameters.values(), norm=options.clip_norm, value=options.clip_value)
        student.optimizer.step()
    apply_masks(parameters, student.masks)
    average = student.average
    if average is not None and step >= average.options.from_epoch * run.per_epoch:
        average.add(student.masks)
    return rate, norm


def _change_masks(student: Student, run: TrainingRun, step: int, per_epoch: int) -> bool:
    """Let the rule change the masks, by the gradients at hand; whether that was the whole step."""
    if run.sparsity is None:
        return False
    steps = per_epoch * run.options.epochs
    change = run.sparsity.change(
        student.program, student.optimizer, student.masks, Moment(step, per_epoch, steps)
    )
    if change is None:
        return False
    student.masks = placed(change.masks, run.device)
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
