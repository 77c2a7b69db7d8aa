"""A job's checkpoints: which file is written when, and what happens where the disk is full.

A checkpoint saves time and is not needed. Where one cannot be written the job goes on, says so,
and keeps the last one that could.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from engine.job import JobInput, Listener
from engine.pipeline.checkpoint import JobState, save_checkpoint, save_training, training_file
from engine.pipeline.durable import NotWritten, replaced
from engine.pipeline.pace import CheckpointPace
from engine.training.state import TrainingState


class CheckpointWriter:
    """Writes the checkpoints of a job into its work folder.

    Attributes:
        pace: when training is to be noted.
        path: of the checkpoint.
    """

    def __init__(self, job: JobInput, listener: Listener, fingerprint: str) -> None:
        self.pace = CheckpointPace(job.recipe.checkpoint)
        self.path = job.workdir / "checkpoint.pt"
        self._listener = listener
        self._fingerprint = fingerprint
        self._step: int | None = None

    def resume(self, source: Path, state: JobState) -> None:
        """Go on from a checkpoint, whose files are taken into the work folder."""
        self._listener.log(
            "resumed from a checkpoint",
            finished_steps=state.next_step,
            finished_epochs=0 if state.training is None else state.training.epoch,
        )
        self._step = state.next_step if self._write(lambda: self._copy(source)) else None

    def step_ended(self, state: JobState, file: bytes | None) -> None:
        """Write where the job stands between two steps.

        Args:
            state: that is written.
            file: of its program; None while it is the upload.
        """
        self.pace.begin()
        if self._write(
            lambda: save_checkpoint(state, self.path, file=file, fingerprint=self._fingerprint)
        ):
            self._step = state.next_step
            self._listener.checkpoint(self.path)

    def training(self, state: JobState, save_step: Callable[[], None]) -> None:
        """Write where the training of the next step stands.

        Args:
            state: with that training.
            save_step: writes the state before the step, which there was no room for at its time.
        """
        if self._step != state.next_step:
            save_step()
        if self._step == state.next_step and self._write(
            lambda: save_training(state, self.path, fingerprint=self._fingerprint)
        ):
            self._listener.checkpoint(self.path, training_file(self.path))

    def _copy(self, source: Path) -> None:
        for given, own in (
            (source, self.path),
            (training_file(source), training_file(self.path)),
        ):
            if given.exists():
                with given.open("rb") as read, replaced(own) as target:
                    shutil.copyfileobj(read, target)

    def _write(self, write: Callable[[], None]) -> bool:
        """Whether it was written."""
        try:
            write()
        except NotWritten as error:
            self._listener.log(
                f"no checkpoint: {error.strerror}; the job goes on, and would resume from the last "
                "one that was written"
            )
            return False
        finally:
            self.pace.written()
        return True


class TrainingNotes:
    """Passes on what a training run says, with the name of its step, and notes where it stands."""

    def __init__(
        self,
        writer: CheckpointWriter,
        listener: Listener,
        state: JobState,
        label: str,
        *,
        started: float,
        save_step: Callable[[], None],
    ) -> None:
        """Args:
        writer: of the job.
        listener: of the job.
        state: before the step.
        label: of the step.
        started: `time.monotonic()` when the step began, earlier attempts included.
        save_step: see `CheckpointWriter.training`.
        """
        self._writer = writer
        self._listener = listener
        self._state = state
        self._label = label
        self._started = started
        self._save_step = save_step

    def progress(self, current: int, total: int, unit: str) -> None:
        """Steps done."""
        self._listener.progress(current, total, unit)

    def metric(self, name: str, value: float, step: int) -> None:
        """A value after an epoch."""
        self._listener.metric(name, value, step, self._label)

    def remark(self, message: str) -> None:
        """Tell it at once; the report has it too."""
        self._listener.log(f"{self._label}: {message}")

    def step_finished(self, state: TrainingState) -> None:
        """Note it."""
        self._note(state)

    def epoch_finished(self, state: TrainingState) -> None:
        """Note it."""
        self._note(state)

    def _note(self, training: TrainingState) -> None:
        self._state.training = training
        self._state.elapsed_ms = (time.monotonic() - self._started) * 1000
        self._writer.training(self._state, self._save_step)
