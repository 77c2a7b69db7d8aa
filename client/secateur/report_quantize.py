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


class WeightFormats(ReportModel):
    """One weight in the formats that were compared."""

    name: str
    chosen: str
    """`8`, `4`, `2`, `1`, `codebook`, `float16`, or `keep`: as it was."""
    bytes: dict[str, int]
    """By format, scales and tables included. Formats that make it no smaller are left out."""
    loss: dict[str, float | None]
    """By format: what the model loses with this weight alone in it, in the unit of
    `BitAllocation.measure`; null where outputs are not finite."""


class BitAllocation(ReportModel):
    """How the bits of each weight were chosen."""

    rule: str
    """Name of the budget or limit, as in the recipe: `bytes`, `max_drift`, ..."""
    limit: float
    """Its value; bytes as a number."""
    measure: Literal["drift", "loss"]
    """What was measured with one weight at a time: the norm of the change of the outputs over the
    norm, or the rise of the loss."""
    samples: int
    """That it was measured on."""
    bytes: int
    """Of the weights as they are stored."""
    bytes_before: int
    predicted: float
    """What the losses of single weights say all of them lose together: the root of the
    sum of squares of drifts, the sum of losses."""
    measured: float | None
    """The same with all weights in their formats; null where outputs are not finite."""
    lost: float | None = None
    """Of the limit, measured; null under a budget of bytes."""
    tried: int
    """Choices of all weights that were measured on the way."""
    weights: list[WeightFormats]


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
    allocation: BitAllocation | None = None
    """How the bits of each weight were chosen; null where all have the same."""
    trained: bool = False
    """Whether the stage trained what it stored; errors are those before that training."""
    warnings: list[str] = Field(default=[])
