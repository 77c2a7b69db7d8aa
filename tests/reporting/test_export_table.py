"""Exports as the report shows them."""

from __future__ import annotations

from secateur.report import ExportReport

from reporting import html
from reporting.export_table import export_rows
from tests.reporting.samples import HOSTILE, small_report

EXPORTS = [
    ExportReport(format="torchscript", state="made", artifact="model", file_bytes=2000),
    ExportReport(
        format="onnx", state="made", artifact="onnx", file_bytes=1_500_000,
        verified_by="onnxruntime 1.30 on CPU", relative_error=2.5e-7, tolerance=1e-3, batch="any",
        batch_sizes=[1, 3], notes=["`scale` is fixed", "two"],
    ),
    ExportReport(format="pt2", state="failed", reason=HOSTILE, batch="fixed"),
]  # fmt: skip


def test_rows_by_hand() -> None:
    _, made, failed = export_rows(EXPORTS)
    assert (made.file, made.error, made.samples) == ("1.50 MB", "2.5e-07", "any number")
    assert made.remarks == "`scale` is fixed; two"
    assert (failed.failed, failed.file, failed.samples) == (True, "failed", "as the example")


def test_torchscript_alone_has_no_table() -> None:
    assert export_rows(EXPORTS[:1]) == []
    assert "<h2>Exports</h2>" not in html.render(small_report())


def test_the_page_has_the_table_and_escapes_reasons() -> None:
    page = html.render(small_report().model_copy(update={"exports": EXPORTS}))
    assert "<h2>Exports</h2>" in page
    assert "onnxruntime 1.30 on CPU" in page
    assert "<script>" not in page
