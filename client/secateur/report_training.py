"""How training went: curves of loss and learning rate, and what they cost in time and memory."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from secateur.report_base import ReportModel


class TrainingPoint(ReportModel):
    """One point of a curve."""

    step: int
    """Optimiser steps taken so far."""
    loss: float
    """What was minimised, averaged over the samples since the point before."""
    lr: float
    """Learning rate of the step."""
    gradient_norm: float | None = None
    """L2 norm of all gradients before clipping; null where the recipe clips no norm."""


class TrainingEpoch(ReportModel):
    """What an epoch was measured at when it ended."""

    epoch: int
    """From 1."""
    values: dict[str, float]
    """By name of the metric, such as `train/loss` and `validation/accuracy`."""


class TrainingPace(ReportModel):
    """Speed and memory by the clock of the machine: the only numbers here that differ between two
    runs of the same job on one CPU."""

    memory: Literal["cuda_peak_allocated", "process_resident"]
    """What `memory_bytes` counts: the most that tensors took on the GPU since training began, or
    what the process holds in main memory."""
    steps: list[int] = Field(default=[])
    """Of the points measured; a resumed job goes on behind those of its earlier attempts."""
    samples_per_second: list[float] = Field(default=[])
    """Since the point before, without validation and checkpoints."""
    memory_bytes: list[int] = Field(default=[])


class RateSearch(ReportModel):
    """How `lr: auto` found its learning rate: a range test on a copy (Smith 2017)."""

    rates: list[float]
    """Of its steps, each larger than the one before by the same factor."""
    losses: list[float]
    """Smoothed, at the same steps."""
    chosen: float
    """A tenth of the rate at the smallest loss; the run trained with it."""


class TrainingCurves(ReportModel):
    """One training run of the job."""

    stage_index: int
    label: str
    """Of the step, such as `finetune after round 2 of 4`."""
    steps: int
    """Optimiser steps planned."""
    stride: int
    """Steps between two points; 200 points are the most."""
    points: list[TrainingPoint]
    epochs: list[TrainingEpoch]
    pace: TrainingPace
    rate_search: RateSearch | None = None
    """Null where the recipe gives the learning rate, and in older reports."""
