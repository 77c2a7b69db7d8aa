"""A quantise step of a job: weights take values of fewer bits, and how they are stored is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from secateur.recipe_quantize import (
    HalfPrecision,
    Int8Options,
    QuantizeOptions,
    StoredOptions,
)
from secateur.report import QuantizationReport, QuantizedLayer
from torch import Tensor

from engine.errors import NothingQuantised
from engine.job import Listener
from engine.pipeline.bit_choice import choose_bits_of
from engine.pipeline.checkpoint import JobState
from engine.pipeline.encoders import Encoder, encoder_of
from engine.pipeline.half_step import half_step
from engine.pipeline.int8 import int8_step
from engine.pipeline.output_error import output_error
from engine.pipeline.setup import Workbench
from engine.pipeline.steps import QuantizeStep
from engine.quantisation.encoding import Encoding
from engine.quantisation.packaging import bigger
from engine.quantisation.quantisable import quantisable
from engine.torchscript.program import Program


@dataclass
class _Outcome:
    program: Program
    encodings: dict[str, Encoding] = field(default_factory=dict)
    layers: list[QuantizedLayer] = field(default_factory=list)
    too_large: list[str] = field(default_factory=list)


def quantize_step(
    bench: Workbench, state: JobState, step: QuantizeStep, listener: Listener
) -> QuantizationReport:
    """Give weights values of fewer bits; the program of the state from here on has them.

    Raises:
        NothingQuantised: no weight became smaller, with the reason for each.
        EngineError: a weight cannot be encoded, named.
    """
    given, stage = state.program, step.stage
    if isinstance(stage, Int8Options):
        return _told(int8_step(bench, state, step, stage), state, step, listener)
    if isinstance(stage, HalfPrecision) and stage.compute == "half":
        return _told(half_step(bench, state, step), state, step, listener)
    choice = choose_bits_of(bench, state, step, listener)
    encode = encoder_of(stage, bench.recipe.seed) if choice is None else choice.encode
    done = encode_weights(given, stage, state, encode, notes={} if choice is None else choice.notes)
    if not done.encodings:
        raise _nothing(stage, done.layers, step.field)
    state.program = done.program
    if stage.finetune is not None:
        held = given.parameters()
        state.quantised.trained = {
            name: held[name].detach().cpu().clone() for name in done.encodings
        }
    for name, encoding in done.encodings.items():
        state.quantised.encodings[name] = encoding
        state.quantised.decode[name] = stage.decode
    report = QuantizationReport(
        stage_index=step.stage_index,
        scheme=stage.scheme,
        decode=stage.decode,
        layers=done.layers,
        bits=_mean_bits(done.encodings),
        output_error=output_error(bench, given, done.program),
        allocation=None if choice is None else choice.report,
        warnings=_warnings(done) + ([] if choice is None else choice.warnings),
    )
    return _told(report, state, step, listener)


def _told(
    report: QuantizationReport, state: JobState, step: QuantizeStep, listener: Listener
) -> QuantizationReport:
    """The same report, kept and with its warnings logged."""
    state.quantization.append(report)
    for warning in report.warnings:
        listener.log(f"{step.label}: {warning}")
    return report


@torch.no_grad()
def encode_weights(
    given: Program,
    stage: StoredOptions,
    state: JobState,
    encode: Encoder,
    *,
    notes: Mapping[str, str] = MappingProxyType({}),
) -> _Outcome:
    """Encode what can be, and write the decoded values into a program of its own.

    Args:
        given: stays as it is.
        stage: says what is excluded.
        state: has what earlier stages stored, and masks.
        encode: one weight.
        notes: by weight, what is to be told of its format.
    """
    done = _Outcome(given.twin())
    held = done.program.attributes()
    weights, reasons = quantisable(given, stage.exclude)
    for name, reason in reasons.items():
        done.layers.append(_kept(name, given.attributes()[name], reason))
    for name, weight in weights.items():
        if name in state.quantised.encodings:
            earlier = state.quantised.encodings[name]
            done.layers.append(
                _kept(name, weight, f"an earlier stage stored it ({earlier.scheme})")
            )
            continue
        encoding = encode(name, weight.detach().cpu(), state.masks.get(name))
        before = weight.numel() * weight.element_size()
        if isinstance(encoding, str):
            done.layers.append(_kept(name, weight, notes.get(name, encoding)))
            continue
        reason = bigger(encoding, stage.decode)
        if reason:
            done.layers.append(_kept(name, weight, reason))
            done.too_large.append(name)
            continue
        decoded = encoding.decode().to(weight.device)
        # In place: a weight that two layers share stays shared.
        held[name].copy_(decoded)
        done.encodings[name] = encoding
        done.layers.append(
            QuantizedLayer(
                name=name,
                shape=list(weight.shape),
                form="encoded",
                bits=encoding.bits,
                bytes_before=before,
                bytes_after=encoding.stored_bytes,
                relative_error=_error(weight.detach(), decoded),
                reason=notes.get(name),
            )
        )
    return done


def _kept(name: str, weight: Tensor, reason: str) -> QuantizedLayer:
    size = weight.numel() * weight.element_size()
    return QuantizedLayer(
        name=name,
        shape=list(weight.shape),
        form="float",
        bits=8.0 * weight.element_size(),
        bytes_before=size,
        bytes_after=size,
        reason=reason,
    )


def _error(before: Tensor, after: Tensor) -> float:
    norm = float(torch.linalg.vector_norm(before.double()))
    return float(torch.linalg.vector_norm(before.double() - after.double())) / (norm or 1.0)


def _mean_bits(encodings: dict[str, Encoding]) -> float:
    elements = sum(torch.Size(one.shape).numel() for one in encodings.values())
    return 8 * sum(one.stored_bytes for one in encodings.values()) / max(elements, 1)


def _warnings(done: _Outcome) -> list[str]:
    if not done.too_large:
        return []
    shown = ", ".join(f"`{name}`" for name in done.too_large[:6])
    more = f" and {len(done.too_large) - 6} more" if len(done.too_large) > 6 else ""
    return [f"{shown}{more} stay in floating point: with scales and tables they would be bigger"]


def _nothing(stage: QuantizeOptions, layers: list[QuantizedLayer], where: str) -> NothingQuantised:
    told = "; ".join(f"`{layer.name}`: {layer.reason}" for layer in layers[:4])
    return NothingQuantised(
        "no weight can be stored in fewer bits",
        hint=told or "the program has no weights of two or more dimensions",
        where=f"{where}.exclude" if stage.exclude else where,
    )
