"""What goes into a job of the engine and what it says while it runs.

The engine is pure: files in, files out, and a listener. It knows no database and no broker; the
runner process turns what the listener hears into JSON lines.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from secateur.recipe import Recipe
from secateur.report import Measurement
from secateur.resources import ArtifactKind


@dataclass(frozen=True)
class JobInput:
    """Files and settings of one job.

    Attributes:
        model: the uploaded TorchScript file.
        recipe: validated recipe.
        workdir: an existing empty folder for everything the job writes.
        dataset: file of samples, its format told by the suffix (see `engine.data.opening`), or
            None.
        device: `cpu` or `cuda`.
        threads: torch intra-op threads.
        checkpoint: file written by an earlier attempt to resume from, or None; the file of its
            training may lie beside it (see `engine.pipeline.checkpoint`).
        initial: the model before it was trained, a TorchScript file or a safetensors state dict
            by the model's names, for schedules that rewind; None lets the job train the upload
            and keep its weights.
        loss: TorchScript file of the loss, for `objective.loss: module`, or None.
        metric: TorchScript file of the metric, for `objective.metric: module`, or None.
    """

    model: Path
    recipe: Recipe
    workdir: Path
    dataset: Path | None = None
    device: str = "cpu"
    threads: int = 1
    checkpoint: Path | None = None
    initial: Path | None = None
    loss: Path | None = None
    metric: Path | None = None


@dataclass(frozen=True)
class ProducedArtifact:
    """A finished file in the work folder."""

    kind: ArtifactKind
    path: Path
    media_type: str


class Listener(Protocol):
    """Hears what a job does."""

    def stage_started(self, index: int, name: str) -> None:
        """A stage or one of its steps began; `name` such as `prune round 2 of 4`."""

    def stage_finished(self, index: int, name: str, measurement: Measurement | None) -> None:
        """It ended, with what was measured."""

    def progress(self, current: int, total: int, unit: str) -> None:
        """Progress inside the current stage."""

    def metric(self, name: str, value: float, step: int, stage: str) -> None:
        """One measured value, such as `train/loss`."""

    def log(self, message: str, **data: Any) -> None:
        """A remark worth keeping."""

    def checkpoint(self, path: Path, training: Path | None = None) -> None:
        """A complete checkpoint lies at `path`; an interrupted job can resume from it.

        Args:
            path: of the checkpoint; where `training` is given it is the same as the last time.
            training: a second file beside it that takes the job further; None where there is none.
        """
