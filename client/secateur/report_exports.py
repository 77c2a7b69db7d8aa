"""What became of every export."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from secateur.report_base import ReportModel


class ExportReport(ReportModel):
    """One format in which the result was to be written."""

    format: str
    """In the recipe."""
    state: Literal["made", "failed"]
    artifact: str | None = None
    """Kind of the job's artifact that holds it; null where it failed."""
    file_bytes: int | None = None
    """Of that artifact."""
    verified_by: str | None = None
    """What ran or read the file, with its version; null where it did not come to that."""
    relative_error: float | None = None
    """Largest difference from the TorchScript result over its largest output; null where nothing
    was compared, or the outputs do not compare."""
    tolerance: float | None = None
    """What it was held against."""
    batch: Literal["any", "fixed"] | None = None
    """Whether the file takes any number of samples or that of the example; null where it holds
    weights only."""
    batch_sizes: list[int] = Field(default=[])
    """That were run."""
    notes: list[str] = Field(default=[])
    """What a user of the file should know."""
    reason: str | None = None
    """Why it failed; null where it was made."""
