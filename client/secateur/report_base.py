"""What the parts of a report that have a file of their own are made of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ReportModel(BaseModel):
    """Base of the report objects in those files."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Accuracy(ReportModel):
    """Top-1 on the validation split: `correct` of `total` samples."""

    correct: int
    total: int
    top1: float
