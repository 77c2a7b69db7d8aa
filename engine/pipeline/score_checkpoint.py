"""Where a score job stands: the points it has measured, as one JSON file.

Scores are not kept. They are worked out again from the same seed and samples, to the bit on a CPU.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from secateur.report import Accuracy
from secateur.report_score import ScanPoint

from engine.pipeline.checkpoint import CheckpointUnusable
from engine.pipeline.durable import replaced


class Whole(BaseModel):
    """What the model is like before anything is removed."""

    model_config = ConfigDict(extra="forbid")

    loss: float | None
    accuracy: Accuracy | None
    metric: float | None = None


class ScanState(BaseModel):
    """What the rest of a score job depends on."""

    model_config = ConfigDict(extra="forbid")

    kind: str = "score"
    version: int = 1
    fingerprint: str
    """Names the job's inputs."""
    whole: dict[int, Whole] = {}
    """By stage."""
    points: dict[int, list[ScanPoint]] = {}
    """By stage, layer after layer and ratio after ratio."""


def save_scan(state: ScanState, path: Path) -> None:
    """Write the state beside its place and put it there at once.

    Raises:
        NotWritten: there is no room, or the disk refuses; the last checkpoint is untouched.
    """
    with replaced(path) as target:
        target.write(state.model_dump_json().encode())


def load_scan(path: Path, *, fingerprint: str) -> ScanState:
    """Read the state of a job with the same inputs.

    Raises:
        CheckpointUnusable: damaged, of another version, or of other inputs.
    """
    try:
        state = ScanState.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        raise CheckpointUnusable(
            "the checkpoint cannot be read, or was written by another version",
            hint="start the job anew, without the checkpoint",
            where=path.name,
        ) from error
    if state.fingerprint != fingerprint:
        raise CheckpointUnusable(
            "the checkpoint belongs to another model, dataset or recipe",
            hint="resume with the inputs of the job that wrote it, or start anew",
            where=path.name,
        )
    return state
