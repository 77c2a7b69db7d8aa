"""One step of the optimiser: gradients of its micro-batches, and what is made of them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass

from torch import Tensor

from engine.data.batches import Batch
from engine.errors import UnsupportedOperator, WeightsNotNumbers
from engine.out_of_memory import is_out_of_memory, out_of_memory
from engine.quantisation.half import OutOfHalfRange
from engine.training.accumulation import MicroBatch
from engine.training.blocked_sgd import BlockedSGD
from engine.training.clipping import clip_gradients
from engine.training.divergence import diverged
from engine.training.judging import EpochJudge
from engine.training.optimizer import learning_rate, set_rate
from engine.training.penalty import add_penalty
from engine.training.run import TrainingRun
from engine.training.sparsity import Moment
from engine.training.student import Student, placed


def find_gradients(
    student: Student,
    run: TrainingRun,
    judge: EpochJudge,
    samples: Iterable[tuple[MicroBatch, Batch]],
    *,
    largest: int | None = None,
    apart: bool = False,
) -> None:
    """Leave in the parameters the gradient of the mean loss over the samples of a step.

    Args:
        student: whose parameters they are.
        run: of the student.
        judge: gives the loss, and counts it.
        samples: of the step, in micro-batches.
        largest: samples that are run at a time; larger micro-batches are cut. None for no limit.
        apart: leave the gradients of this process alone, for `World.exchange`.

    Raises:
        OutOfMemory: the device cannot hold what the way back needs.
        UnsupportedOperator: an operator has no gradient.
    """
    student.forget_gradients()
    world = run.world
    for part, whole in samples:
        pieces = [whole] if largest is None else whole.cut(largest)
        before = None if part.counted else judge.memory()
        for batch in pieces:
            together = part.last and batch is pieces[-1] and not apart
            with nullcontext() if together else world.apart(student.forward):
                output = student.precision.run(
                    student.forward, student.memory_format.inputs(batch.inputs)
                )
                exposed = student.program.exposed
                features = {} if exposed is None else exposed.take()
                loss = judge.loss(output, batch, features)
                if student.recording is not None and part.counted:
                    student.recording.batch(loss, batch.size)
                share = part.share * (batch.size / whole.size)
                _backward(student.precision.scaled(loss * share), run)
        if before is not None:
            judge.recall(before)


@dataclass(frozen=True)
class Taken:
    """A step that was taken.

    Attributes:
        rate: learning rate.
        norm: of the gradients before clipping, float64 [], where clipping computed it.
    """

    rate: float
    norm: Tensor | None


def take_step(student: Student, run: TrainingRun, step: int) -> Taken:
    """Move the parameters by the gradients at hand, under masks that may change first.

    Where gradients left the range of fp16 nothing moves; masks that are due change all the same.
    """
    options, parameters, norm = run.options, student.program.parameters(), None
    rate = learning_rate(options, step, run.per_epoch * options.epochs)
    set_rate(student.optimizer, rate)
    finite = student.precision.unscale(parameters)
    if not _change_masks(student, run, step) and finite:
        norm = _move(student, run)
    if not student.zeros_stay:
        student.bits.zero_weights(parameters, student.masks)
    average = student.average
    if average is not None and finite and step >= average.options.from_epoch * run.per_epoch:
        average.add(student.masks)
    return Taken(rate, norm)


def move_parameters(student: Student, run: TrainingRun, rate: float) -> None:
    """`take_step` at a given rate, outside of any schedule: masks hold, averages are left alone."""
    parameters = student.program.parameters()
    set_rate(student.optimizer, rate)
    if student.precision.unscale(parameters):
        _move(student, run)
    if not student.zeros_stay:
        student.bits.zero_weights(parameters, student.masks)


def _move(student: Student, run: TrainingRun) -> Tensor | None:
    """The optimiser's step, by gradients that are penalised, masked and clipped; their norm."""
    options, parameters = run.options, student.program.parameters()
    add_penalty(parameters, options.penalty, student.scales)
    unseen = options.clip_norm is None and options.clip_value is None and student.latents is None
    if unseen and isinstance(student.optimizer, BlockedSGD):
        # Gradients that nobody else looks at are masked when the optimiser comes to them.
        student.optimizer.step_under(student.bits.by_parameter(parameters, student.masks))
        return None
    student.bits.zero_gradients(parameters, student.masks)
    if student.latents is not None:
        student.latents.carry_gradients()
    moved = student.moved()
    norm = clip_gradients(moved.values(), norm=options.clip_norm, value=options.clip_value)
    student.optimizer.step()
    if student.latents is not None:
        try:
            student.latents.moved()
        except (WeightsNotNumbers, OutOfHalfRange) as error:
            raise diverged(error.title, run) from error
    return norm


def _change_masks(student: Student, run: TrainingRun, step: int) -> bool:
    """Let the rule change the masks, by the gradients at hand; whether that was the whole step."""
    if run.sparsity is None:
        return False
    moment = Moment(step, run.per_epoch, run.per_epoch * run.options.epochs)
    change = run.sparsity.change(student.program, student.optimizer, student.masks, moment)
    if change is None:
        return False
    student.masks = placed(change.masks, run.device)
    return change.instead_of_step


def _backward(loss: Tensor, run: TrainingRun) -> None:
    try:
        loss.backward()  # type: ignore[no-untyped-call]
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            where = f"{run.field}.batch_size"
            raise out_of_memory(error, doing="finding gradients", where=where) from error
        raise UnsupportedOperator(
            f"the program cannot be trained: {str(error).strip().splitlines()[-1]}",
            hint="an operator in it has no gradient; leave fine-tuning out, or export the model "
            "from training code without `detach`, `no_grad` or fused inference operators",
            where=run.field,
        ) from error
