"""The engine's listener: what it hears becomes JSON lines."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any, BinaryIO

from pydantic_core import from_json, to_json
from secateur.report import Measurement

from workers.messages import (
    Checkpoint,
    Log,
    Message,
    Metric,
    Progress,
    StageFinished,
    StageStarted,
    TrainingState,
    encode,
)

_PROGRESS_SECONDS = 0.1
_NAME = 200
_REMARK = 10_000


class LineListener:
    """Writes every message as one line, whole: a pipe's reader may be slow, never confused.

    Args:
        events: unbuffered stream.
        workdir: paths are sent relative to it.
    """

    def __init__(self, events: BinaryIO, workdir: Path) -> None:
        self._events = events
        self._workdir = workdir.resolve()
        self._stage_began = time.monotonic()
        self._progress_sent = float("-inf")

    def send(self, message: Message) -> None:
        """Write one message; waits while the pipe is full."""
        line = memoryview(encode(message))
        while line:
            line = line[self._events.write(line) :]

    def relative(self, path: Path) -> str:
        """A file of the work folder, as messages name it."""
        return path.resolve().relative_to(self._workdir).as_posix()

    def stage_started(self, index: int, name: str) -> None:
        """A stage or one of its steps began."""
        self._stage_began = time.monotonic()
        self._progress_sent = float("-inf")
        self.send(StageStarted(index=index, name=name[:_NAME]))

    def stage_finished(self, index: int, name: str, measurement: Measurement | None) -> None:
        """It ended."""
        self.send(StageFinished(index=index, name=name[:_NAME], measurement=measurement))

    def progress(self, current: int, total: int, unit: str) -> None:
        """Progress inside the stage; often said, so most of it is left out."""
        now = time.monotonic()
        if now - self._progress_sent < _PROGRESS_SECONDS and current < total:
            return
        self._progress_sent = now
        elapsed = now - self._stage_began
        remaining = elapsed * (total - current) / current if 0 < current <= total else None
        self.send(Progress(current=current, total=total, unit=unit[:_NAME], eta_seconds=remaining))

    def metric(self, name: str, value: float, step: int, stage: str) -> None:
        """One measured value; one that is no number is told as a remark."""
        if math.isfinite(value):
            self.send(Metric(name=name[:_NAME], value=value, step=step, stage=stage[:_NAME]))
        else:
            self.log(f"{name} is {value} at step {step}", stage=stage)

    def log(self, message: str, **data: Any) -> None:
        """A remark worth keeping."""
        # to plain JSON first: remarks may carry paths, arrays' scalars and numbers that are none
        plain = from_json(to_json(data, fallback=str, inf_nan_mode="strings"))
        self.send(Log(message=message[:_REMARK], data=plain))

    def checkpoint(self, path: Path, training: Path | None = None) -> None:
        """A complete checkpoint lies at `path`, or at `training` what takes the last further."""
        if training is None:
            self.send(Checkpoint(path=self.relative(path)))
        else:
            self.send(TrainingState(path=self.relative(training)))
