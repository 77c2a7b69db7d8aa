"""What a supervisor tells a runner: one JSON file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict
from secateur.recipe import Recipe
from secateur.resources import JobType


class Instructions(BaseModel):
    """One job for one runner. Paths are absolute."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: JobType
    model: Path
    dataset: Path | None
    initial: Path | None = None
    """TorchScript file with the initial weights of the model."""
    loss: Path | None = None
    """TorchScript file that is the loss."""
    metric: Path | None = None
    """TorchScript file that is the metric."""
    checkpoint: Path | None
    recipe: Recipe | None
    workdir: Path
    device: Literal["cpu", "cuda"]
    threads: int
