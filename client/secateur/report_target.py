"""What a prune stage was to bring the model's cost down to, and what it reached."""

from __future__ import annotations

from typing import Literal

from secateur.report_base import ReportModel


class TargetReport(ReportModel):
    """A target of a prune stage: asked and reached, in the unit of the cost (milliseconds are
    medians)."""

    stage_index: int
    of: Literal["params", "macs", "bytes", "latency_ms"]
    """`params` of single weights are those that no mask holds at zero."""
    batch_size: int | None = None
    """Samples per call, of `latency_ms`."""
    before: float
    """Before the stage; milliseconds were measured in turns with what was reached."""
    share: float | None = None
    """The share of that which the recipe asks for; null where it names the cost itself."""
    asked: float
    """What the model may cost after the stage."""
    reached: float | None = None
    """What it costs after the stage's last round so far; null before the first. Milliseconds are
    the second measurement of the candidate that was taken."""
    tolerance: float
    matched: bool = False
    """Whether what was reached is not above what was asked, and below it by `tolerance` at most."""
    measured: int = 0
    """Measurements that a target in milliseconds took."""
    final: float | None = None
    """Milliseconds of the job's result, measured at its end like all latencies of the report; null
    for other costs."""
