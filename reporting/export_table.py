"""The table of exports: what each file is, what ran it, and how far it is from TorchScript."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.report import ExportReport

from reporting import formatting
from reporting.formatting import MISSING

_SAMPLES = {"any": "any number", "fixed": "as the example"}


@dataclass(frozen=True)
class ExportRow:
    """One format."""

    format: str
    failed: bool
    file: str
    verified_by: str
    error: str
    tolerance: str
    samples: str
    remarks: str


def export_rows(exports: list[ExportReport]) -> list[ExportRow]:
    """In the order of the recipe; none where TorchScript is all there is."""
    if all(one.format == "torchscript" for one in exports):
        return []
    return [
        ExportRow(
            format=one.format,
            failed=one.state == "failed",
            file="failed" if one.file_bytes is None else formatting.size(one.file_bytes),
            verified_by=one.verified_by or MISSING,
            error=_number(one.relative_error),
            tolerance=_number(one.tolerance),
            samples=MISSING if one.batch is None else _SAMPLES[one.batch],
            remarks="; ".join([*([] if one.reason is None else [one.reason]), *one.notes]),
        )
        for one in exports
    ]


def _number(value: float | None) -> str:
    return MISSING if value is None else formatting.scientific(value)
