"""Targets as the report shows them."""

from __future__ import annotations

from secateur.report import TargetReport

from reporting.target_table import target_rows


def test_rows_by_hand() -> None:
    targets = [
        TargetReport(
            stage_index=0, of="macs", before=2424, share=0.4, asked=969.6, reached=597,
            tolerance=0.02,
        ),
        TargetReport(
            stage_index=2, of="latency_ms", batch_size=8, before=4.5, asked=3.5, reached=3.47,
            tolerance=0.02, matched=True, measured=11, final=3.61,
        ),
        TargetReport(stage_index=3, of="bytes", before=9000, asked=8000, tolerance=0.1),
    ]  # fmt: skip
    short, timed, missing = target_rows(targets)
    assert (short.stage, short.cost, short.before, short.asked) == (
        1,
        "MACs",
        "2,424",
        "970 (40.0 %)",
    )
    assert (short.reached, short.matched) == ("597", "no, 38.4 % less than asked")
    assert timed.cost == "milliseconds at batch 8, 11 measurements"
    assert (timed.reached, timed.matched, timed.final) == ("3.470 ms", "yes", "3.610 ms")
    assert missing.matched == "NOT MET"
