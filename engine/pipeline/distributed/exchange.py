"""What the processes of a training step tell the job, by files in the step's folder.

The first process appends what an observer hears as JSON lines; states and the result are files of
tensors, written beside their place and renamed. The first process that fails for a reason the user
can act on leaves it in a file of its own, which no later one overwrites.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from engine import errors
from engine.errors import EngineError
from engine.pipeline.pace import CheckpointPace
from engine.training.run import TrainingObserver
from engine.training.state import TrainingState

EVENTS, ERROR, RESULT = "events.jsonl", "error.json", "result.pt"


class Teller:
    """The observer of the first process."""

    def __init__(self, folder: Path, pace: CheckpointPace) -> None:
        """Args:
        folder: where the job's own process looks.
        pace: told when a state was written.
        """
        self._folder = folder
        self._pace = pace
        self._states = 0

    def progress(self, current: int, total: int, unit: str) -> None:
        """See `TrainingObserver`."""
        self._tell("progress", current, total, unit)

    def metric(self, name: str, value: float, step: int) -> None:
        """See `TrainingObserver`."""
        self._tell("metric", name, value, step)

    def remark(self, message: str) -> None:
        """See `TrainingObserver`."""
        self._tell("remark", message)

    def step_finished(self, state: TrainingState) -> None:
        """See `TrainingObserver`."""
        self._tell("step_finished", self._kept(state))

    def epoch_finished(self, state: TrainingState) -> None:
        """See `TrainingObserver`."""
        self._tell("epoch_finished", self._kept(state))

    def _kept(self, state: TrainingState) -> str:
        self._states += 1
        # Another process of the same rank may have come before, after a restart.
        file = self._folder / f"state-{os.getpid()}-{self._states}.pt"
        write_tensors(state.to_plain(), file)
        self._pace.written()
        return file.name

    def _tell(self, method: str, *arguments: Any) -> None:
        with (self._folder / EVENTS).open("a") as events:
            events.write(json.dumps([method, *arguments]) + "\n")


class Silent:
    """The observer of every other process."""

    def progress(self, current: int, total: int, unit: str) -> None:
        """Nothing."""

    def metric(self, name: str, value: float, step: int) -> None:
        """Nothing."""

    def remark(self, message: str) -> None:
        """Nothing."""

    def step_finished(self, state: TrainingState) -> None:
        """Nothing."""

    def epoch_finished(self, state: TrainingState) -> None:
        """Nothing."""


class Reader:
    """Passes on what the first process has told since the last look."""

    def __init__(self, folder: Path, observer: TrainingObserver) -> None:
        self._folder = folder
        self._observer = observer
        self._read = 0

    def look(self) -> None:
        """Pass on every whole line that is new; a state's file is gone afterwards."""
        for method, *arguments in self._lines():
            if method in ("step_finished", "epoch_finished"):
                file = self._folder / arguments[0]
                state = TrainingState.from_plain(read_tensors(file))
                file.unlink()
                getattr(self._observer, method)(state)
            else:
                getattr(self._observer, method)(*arguments)

    def _lines(self) -> Iterator[list[Any]]:
        try:
            with (self._folder / EVENTS).open("rb") as events:
                events.seek(self._read)
                fresh = events.read()
        except FileNotFoundError:
            return
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            yield json.loads(line)


def write_tensors(plain: dict[str, Any], file: Path) -> None:
    """Plain data and tensors, whole or not at all."""
    partial = file.with_suffix(".partial")
    torch.save(plain, partial)
    partial.replace(file)


def read_tensors(file: Path) -> dict[str, Any]:
    """The reverse; no code is run."""
    plain: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return plain


def leave_error(error: EngineError, folder: Path) -> None:
    """Keep the first error of the step's processes for the job."""
    kind = type(error)
    plain = {
        "class": kind.__name__ if getattr(errors, kind.__name__, None) is kind else "",
        "type": kind.type,
        "retryable": kind.retryable,
        "title": error.title,
        "hint": error.hint,
        "where": error.where,
    }
    partial = folder / f"error-{os.getpid()}.partial"
    partial.write_text(json.dumps(plain))
    try:
        os.link(partial, folder / ERROR)
    except FileExistsError:
        pass  # another process was first
    finally:
        partial.unlink()


def raise_error(folder: Path) -> None:
    """Raise what a process left, if any.

    Raises:
        EngineError: of the class it was raised as; one that is not among `engine.errors` keeps its
            type and whether a retry helps.
    """
    file = folder / ERROR
    if not file.exists():
        return
    plain = json.loads(file.read_text())
    kind: type[EngineError] = getattr(errors, plain["class"] or "EngineError")
    error = kind(plain["title"], hint=plain["hint"], where=plain["where"])
    error.type, error.retryable = plain["type"], plain["retryable"]
    raise error
