"""The tables of quantisation: what each stage made of each weight."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.report import BitAllocation, QuantizationReport, QuantizedLayer

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
    if report.allocation is not None:
        parts.append(allocation_words(report.allocation))
    parts.append(
        f"outputs on the example changed by at most {formatting.percent(report.output_error, 2)} "
        "of the largest"
    )
    return "; ".join(parts) + "."


def allocation_words(choice: BitAllocation) -> str:
    """How the bits of each weight were chosen, and how well that was predicted."""
    limit = formatting.size(round(choice.limit)) if choice.rule == "bytes" else f"{choice.limit:g}"
    found = "not finite" if choice.measured is None else f"{choice.measured:.3g}"
    kept = "" if choice.lost is None else f" (of the limit {choice.lost:.3g} was lost)"
    return (
        f"formats chosen for {choice.rule} {limit} by the {choice.measure} on {choice.samples} "
        f"samples: {formatting.size(choice.bytes)} of {formatting.size(choice.bytes_before)}, "
        f"{choice.measure} {choice.predicted:.3g} predicted and {found} measured{kept}"
    )


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
