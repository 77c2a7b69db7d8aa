"""What every report object has in common, and the accuracy that many of them hold."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ReportModel(BaseModel):
    """Base of every report object."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class MetricReport(ReportModel):
    """What a metric's number means."""

    name: str
    """In the recipe."""
    title: str
    higher_is_better: bool
    fraction: bool
    """Whether it is a share in [0, 1], shown in per cent."""


class ObjectiveReport(ReportModel):
    """What the model is for: the loss that is reported, and every metric."""

    loss: str
    """In the recipe."""
    metrics: list[MetricReport] = Field(min_length=1)
    """The first decides: which epoch is kept, who wins, what the verdict is about."""

    @property
    def decides(self) -> MetricReport:
        """The first."""
        return self.metrics[0]


CLASSIFICATION = ObjectiveReport(
    loss="cross_entropy",
    metrics=[
        MetricReport(name="accuracy", title="top-1 accuracy", higher_is_better=True, fraction=True)
    ],
)
"""Of every report that says nothing else."""


class Accuracy(ReportModel):
    """Top-1 on the validation split: `correct` of `total` samples."""

    correct: int
    total: int
    top1: float
