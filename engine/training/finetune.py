"""Fine-tuning: the uploaded program itself is trained, survivors start from their own weights.

The program is switched to training on a copy whose weights move, and evaluated on another copy
that takes over the weights after every epoch; the second is what comes out. Both run without the
TorchScript optimiser, whose first calls profile and whose later calls run rewritten graphs with
other rounding: a resumed process would differ from an undisturbed one in the last bits.

This module counts epochs, `engine.training.epoch` the steps of one, `engine.training.step` takes
a step.
"""

from __future__ import annotations

from functools import partial

from engine.calling import plain_execution
from engine.errors import TrainingDiverged
from engine.torchscript.program import Program
from engine.training.denormals import flushed_denormals
from engine.training.divergence import check_weights
from engine.training.epoch import train_epoch
from engine.training.lr_finder import with_rate
from engine.training.recording import Recording
from engine.training.run import Trained, TrainingObserver, TrainingRun
from engine.training.state import TrainingState
from engine.training.student import Student, begin
from engine.training.validation import may_be_kept, validate


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
        TrainingRuleUnmet: a rule finds nothing in the model, or no room in the run; or no learning
            rate is found where the recipe asks for one.
        TrainingDiverged: the loss or a weight is no longer finite, or the loss is far too high
            for too long, before there was an epoch to keep (see `engine.training.divergence`).
        InputsDoNotFit: the program refuses the batch size.
    """
    run, search = with_rate(program, run, observer, resume)
    student = begin(program, run)
    student.recording = heard = Recording(run, observer)
    heard.search = search
    if resume is not None:
        student.recall(resume, run)
    if run.sparsity is not None:
        run.sparsity.check(run.per_epoch, run.per_epoch * run.options.epochs)
        run.sparsity.recall({} if resume is None else resume.memory, run.device)
    for epoch in range(student.finished, run.epochs.stop):
        if student.patience is not None and student.patience.exhausted:
            break
        try:
            _train_and_judge(student, run, epoch, heard)
        except TrainingDiverged as error:
            # All processes of a run come here together, by the same sums and weights.
            if not student.fall_back(error, run, epoch):
                raise
            student.remark(f"training diverged {student.diverged}", heard)
            break
        student.finished = epoch + 1
        if run.world.agree(run.pace is None or run.pace.due_after_epoch()):
            observer.epoch_finished(student.state(run))
    return student.trained(run)


def _train_and_judge(
    student: Student, run: TrainingRun, epoch: int, observer: TrainingObserver
) -> None:
    """One epoch (from 0), and whether it may be the result."""
    with flushed_denormals(), plain_execution():
        loss = train_epoch(student, run, epoch, observer)
    settled = may_be_kept(run, student.average, epoch)
    student.watch.see(loss, run, epoch, settled=settled)
    student.settle()
    check_weights(student.moved(), run, epoch)
    measured = run.world.told(partial(validate, student.result, run, epoch, observer))
    if settled:
        if measured is not None:
            student.judge(measured, run, epoch)
        student.keep_good(run, epoch)
