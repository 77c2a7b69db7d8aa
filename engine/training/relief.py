"""Too little memory for a batch: it is run in smaller parts, and the step is the same.

A step that finds no memory on the way forward or back is begun anew with parts of half as many
samples, whose gradients are added with the shares of `engine.training.accumulation`: the same
gradient up to rounding where nothing acts on a batch as a whole. BatchNorm and dropout act on each
part, as they do under `accumulate`. The size that worked holds for the rest of the run.

What the failed attempt left is undone first: gradients, what forward wrote to buffers (running
statistics), what was summed up, and the random generator. Parameters and the optimiser were not
touched, for they move after all gradients are there; an optimiser that finds no memory for its
own state ends the run.

Several processes must agree on every attempt, for the gradients of a process that failed would be
waited for. So in the first steps after a start each finds its own apart from the others; then all
say whether memory ran out. If it did anywhere, all begin the step anew with the same smaller parts,
and otherwise exchange their gradients. The first of these steps makes the optimiser's state and the
second shows that it fits in beside the rest. From then on gradients are exchanged on the way back,
and memory that runs out ends the run.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

import torch
from torch import Tensor

from engine.data.batches import Batch
from engine.errors import EngineError, InputsDoNotFit, ModelRaised, OutOfMemory, UnsupportedOperator
from engine.seeds import derive
from engine.training.accumulation import MicroBatch
from engine.training.judging import EpochJudge
from engine.training.run import TrainingObserver, TrainingRun
from engine.training.state import copy_tensors, snapshot
from engine.training.step import find_gradients
from engine.training.student import Student

STEPS_APART = 2
"""Of several processes, after a start."""

Samples = Generator[Iterator[tuple[MicroBatch, Batch]]]
"""The micro-batches of one step after another."""


class Relief:
    """Finds the gradients of a step within the memory that there is."""

    def __init__(
        self, student: Student, run: TrainingRun, judge: EpochJudge, observer: TrainingObserver
    ) -> None:
        """Args:
        student: whose gradients they are.
        run: of the student.
        judge: of the epoch.
        observer: hears when parts get smaller.
        """
        self._student = student
        self._run = run
        self._judge = judge
        self._observer = observer

    def find_gradients(self, step: int, samples: Samples, again: Callable[[], Samples]) -> Samples:
        """`find_gradients`, with smaller parts of its batches where memory runs out.

        Args:
            step: of the whole training.
            samples: from this step on.
            again: gives them anew.

        Returns:
            The samples from the next step on.

        Raises:
            OutOfMemory: not even one sample fits, or the program does not run with fewer.
        """
        student, run, world = self._student, self._run, self._run.world
        apart = world.size > 1 and student.steps_apart < STEPS_APART
        if world.size > 1 and not apart:
            find_gradients(student, run, self._judge, next(samples), largest=student.micro_batch)
            return samples
        if apart:
            world.share_buffers(student.forward)
        before = _Before(student, self._judge)
        largest, failed = student.micro_batch, ""
        while True:
            ran_out = ""
            try:
                find_gradients(
                    student, run, self._judge, next(samples), largest=largest, apart=apart
                )
            except OutOfMemory as error:
                # Only its words: it holds the frames, and these hold what memory is full of.
                ran_out = error.title
            except (InputsDoNotFit, ModelRaised, UnsupportedOperator) as error:
                if not failed:
                    raise
                fewer = f"with {largest} at a time it does not run: {error.title}"
                raise _hopeless(run, f"{failed}; and {fewer}") from error
            ran_out = world.said(ran_out)
            if not ran_out:
                break
            failed = ran_out
            if largest == 1:
                raise _hopeless(run, f"not even one sample fits: {failed}")
            samples.close()
            largest = _half(largest, run)
            before.restore(student, self._judge)
            torch.manual_seed(seed_of_draws(run, step))
            samples = again()
        if apart:
            world.exchange(student.forward)
            student.steps_apart += 1
        if largest != student.micro_batch:
            student.micro_batch = largest
            student.remark(
                f"out of memory in step {step + 1}: batches of {run.options.batch_size} are run "
                f"in parts of at most {largest} samples, and make the same steps",
                self._observer,
            )
        return samples


def seed_of_draws(run: TrainingRun, step: int) -> int:
    """Of what the program draws in a step, in this process."""
    rank = run.world.rank
    process = ("process", rank) if rank else ()
    return derive(run.seed, run.purpose, "draws", step, *process)


class _Before:
    """What a step may change before its gradients are complete."""

    def __init__(self, student: Student, judge: EpochJudge) -> None:
        self._buffers: dict[str, Tensor] = snapshot(student.program.buffers())
        self._sums: dict[str, Any] = judge.memory()
        self._recorded = None if student.recording is None else student.recording.sums()

    def restore(self, student: Student, judge: EpochJudge) -> None:
        student.forget_gradients()
        copy_tensors(self._buffers, student.program.buffers())
        judge.recall(self._sums)
        if student.recording is not None and self._recorded is not None:
            student.recording.take_back(self._recorded)
        if student.program.device.startswith("cuda"):
            torch.cuda.empty_cache()


def _half(largest: int | None, run: TrainingRun) -> int:
    """Samples at a time after those."""
    now = min(run.options.batch_size, run.train.samples) if largest is None else largest
    return -(-now // 2)


def _hopeless(run: TrainingRun, why: str) -> EngineError:
    return OutOfMemory(
        f"the model cannot be trained in the memory that there is: {why}",
        hint="run on a device with more memory, or train a smaller model or smaller samples",
        where=f"{run.field}.batch_size",
    )
