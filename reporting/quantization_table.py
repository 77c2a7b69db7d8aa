"""The tables of quantisation: what each stage made of each weight."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.report import QuantizationReport, QuantizedLayer

from reporting import formatting
from reporting.formatting import MISSING

_DECODED = {
    "at_use": "stored weights become numbers whenever they are read",
    "at_load": "stored weights become numbers when the file is loaded",
}


@dataclass(frozen=True)
class QuantizedRow:
    """One weight."""

    name: str
    shape: str
    form: str
    bits: str
    before: str
    after: str
    error: str


def quantization_words(report: QuantizationReport) -> str:
    """What a stage did, in a sentence."""
    changed = sum(layer.form != "float" for layer in report.layers)
    parts = [
        f"Stage {report.stage_index + 1}, {report.scheme}: {changed} of {len(report.layers)} "
        f"weights are stored in {report.bits:.2f} bits on average"
    ]
    if report.decode is not None:
        parts.append(_DECODED[report.decode])
    parts.append(
        f"outputs on the example changed by at most {formatting.percent(report.output_error, 2)} "
        "of the largest"
    )
    return "; ".join(parts) + "."


def quantized_rows(report: QuantizationReport) -> list[QuantizedRow]:
    """The weights in the order of the model, those that stay as they were with the reason."""
    return [
        QuantizedRow(
            name=layer.name,
            shape=formatting.shape(layer.shape),
            form=_form(layer),
            bits=f"{layer.bits:.2f}",
            before=formatting.size(layer.bytes_before),
            after=formatting.size(layer.bytes_after),
            error=MISSING
            if layer.relative_error is None
            else formatting.percent(layer.relative_error, 2),
        )
        for layer in report.layers
    ]


def _form(layer: QuantizedLayer) -> str:
    name = "as it was" if layer.form == "float" else layer.form
    return f"{name}: {layer.reason}" if layer.reason else name
