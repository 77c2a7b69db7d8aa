"""The report of a score job: how sensitive every layer is to pruning it alone.

Nothing is made, so there is nothing to certify: the report says so in `without_certificate`.
"""

from __future__ import annotations

from typing import Literal

from secateur.report import Accuracy, Frozen, ObjectiveReport, Provenance, ReportModel
from secateur.report_base import CLASSIFICATION

UNCERTIFIED = (
    "There is no certificate: a score job makes no model, and the uploaded one stays as it was."
)


class ScanPoint(ReportModel):
    """One layer pruned at one ratio, everything else whole."""

    ratio: float
    """As the recipe asks."""
    removed: int
    """Channels, heads or weights set to zero; 0 where the ratio rounds to none, and fewer than
    asked where the rest must stay."""
    drift: float | None = None
    """||y_pruned - y|| / ||y|| of the outputs; null where not measured or not finite."""
    loss: float | None = None
    """Average loss; null where not measured or not finite."""
    accuracy: Accuracy | None = None
    """Null where not measured."""
    metric: float | None = None
    """The metric that decides; null where not measured or not finite, and in older reports."""
    elapsed_ms: float


class LayerScan(ReportModel):
    """One layer, or the layers whose channels live and die together, at all ratios."""

    name: str
    members: list[str]
    """Layers (granularity `element`: the weight) that lose what the points remove."""
    units: int
    """Channels, heads or weights it has."""
    removable: int
    """How many of them may go; fewer than `units` where some must stay."""
    sensitivity: float | None
    """Mean over the ratios of what is lost: the drift, the accuracy given up (as a fraction), the
    rise of the loss or how much worse the metric got; null where a point is not finite."""
    points: list[ScanPoint]
    """In the order of the ratios."""


class Scan(ReportModel):
    """The result of one score stage."""

    stage_index: int
    granularity: Literal["channel", "head", "element"]
    criterion: str
    measure: Literal["drift", "metric", "accuracy", "loss"]
    split: Literal["validation", "train", "example"]
    """What was measured on; `example` without a dataset."""
    samples: int
    ratios: list[float]
    loss: float | None
    """Of the whole model on the same samples; null for `drift`."""
    accuracy: Accuracy | None
    """Of the whole model on the same samples; null for `drift`."""
    metric: float | None = None
    """Of the whole model on the same samples, the metric that decides; null for `drift`."""
    layers: list[LayerScan]
    """In the order of the model."""
    frozen: list[Frozen]
    """What cannot be removed and was not scanned, with the reason."""
    elapsed_ms: float
    """Of all points together."""


class ScoreReport(ReportModel):
    """The whole report of a score job."""

    version: Literal[1] = 1
    kind: Literal["score"] = "score"
    objective: ObjectiveReport = CLASSIFICATION
    """The loss and the metrics."""
    summary: str
    without_certificate: str = UNCERTIFIED
    warnings: list[str]
    scans: list[Scan]
    """One for each score stage."""
    provenance: Provenance
    """Its `result_sha256` is that of the scores, `scores.safetensors`."""
