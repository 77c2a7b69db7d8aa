"""What quantisation stages made of each weight."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from secateur.report_base import ReportModel


class QuantizedLayer(ReportModel):
    """One weight."""

    name: str
    """Of the weight."""
    shape: list[int]
    form: Literal["encoded", "int8", "half", "float"]
    """`float`: it stays as it was, for the reason given."""
    bits: float
    """Stored for each weight, scales and tables included."""
    bytes_before: int
    bytes_after: int
    relative_error: float | None = None
    """Norm of the change over the norm of the weight before; null where it stays."""
    reason: str | None = None
    """Why it stays in floating point, or has more bits than were asked for; null elsewhere."""


class QuantizationReport(ReportModel):
    """A stage that quantised."""

    stage_index: int
    scheme: str
    decode: Literal["at_load", "at_use"] | None = None
    """When the stored weights become numbers; null where the arithmetic itself is in few bits."""
    layers: list[QuantizedLayer]
    bits: float
    """Stored for each weight of the layers that were quantised, on average."""
    output_error: float
    """Largest change of an output on the example, over the largest output."""
    trained: bool = False
    """Whether the stage trained what it stored; errors are those before that training."""
    warnings: list[str] = Field(default=[])
