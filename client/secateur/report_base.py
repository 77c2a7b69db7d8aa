"""What every report object has in common, and the accuracy that many of them hold."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ReportModel(BaseModel):
    """Base of every report object."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Accuracy(ReportModel):
    """Top-1 on the validation split: `correct` of `total` samples."""

    correct: int
    total: int
    top1: float
