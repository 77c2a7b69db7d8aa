"""Quantised weights as the report shows them."""

from __future__ import annotations

from secateur.report import BitAllocation, QuantizationReport, QuantizedLayer, WeightFormats

from reporting.html import render
from reporting.quantization_table import quantization_words, quantized_rows
from tests.reporting.samples import HOSTILE, small_report

REPORT = QuantizationReport(
    stage_index=1,
    scheme="weight_only",
    decode="at_use",
    layers=[
        QuantizedLayer(
            name="fc.weight", shape=[10, 84], form="encoded", bits=4.375, bytes_before=3360,
            bytes_after=460, relative_error=0.0612,
        ),
        QuantizedLayer(
            name="head.weight", shape=[2, 3], form="float", bits=32, bytes_before=24,
            bytes_after=24, reason="excluded by `head`",
        ),
    ],
    bits=4.375,
    output_error=0.0312,
    warnings=["one stays"],
)  # fmt: skip


def test_rows_by_hand() -> None:
    stored, kept = quantized_rows(REPORT)
    assert (stored.name, stored.bits, stored.before, stored.after) == (
        "fc.weight",
        "4.38",
        "3.36 kB",
        "460 B",
    )
    assert (stored.form, stored.error) == ("encoded", "6.12 %")
    assert kept.form == "as it was: excluded by `head`"


def test_words_by_hand() -> None:
    assert quantization_words(REPORT) == (
        "Stage 2, weight_only: 1 of 2 weights are stored in 4.38 bits on average; stored weights "
        "become numbers whenever they are read; outputs on the example changed by at most 3.12 % "
        "of the largest."
    )


def test_the_page_has_the_table_and_escapes_names() -> None:
    layers = [REPORT.layers[0].model_copy(update={"name": HOSTILE})]
    quantized = REPORT.model_copy(update={"layers": layers})
    page = render(small_report().model_copy(update={"quantization": [quantized]}))
    assert "<h2>Quantisation</h2>" in page
    assert "one stays" in page
    assert HOSTILE not in page
    assert "<h2>Quantisation</h2>" not in render(small_report())


def test_words_of_a_choice_by_hand() -> None:
    chosen = BitAllocation(
        rule="max_drift", limit=0.05, measure="drift", samples=256, bytes=460, bytes_before=3360,
        predicted=0.04, measured=0.0412, lost=0.0412, tried=3,
        weights=[
            WeightFormats(
                name="fc.weight", chosen="4", bytes={"4": 460}, loss={"4": 0.04}
            )
        ],
    )  # fmt: skip
    assert (
        "formats chosen for max_drift 0.05 by the drift on 256 samples: 460 B of 3.36 kB, drift "
        "0.04 predicted and 0.0412 measured (of the limit 0.0412 was lost)"
    ) in quantization_words(REPORT.model_copy(update={"allocation": chosen}))
    budget = chosen.model_copy(
        update={"rule": "bytes", "limit": 500.0, "lost": None, "measured": None}
    )
    words = quantization_words(REPORT.model_copy(update={"allocation": budget}))
    assert "for bytes 500 B by" in words
    assert "0.04 predicted and not finite measured; outputs" in words
