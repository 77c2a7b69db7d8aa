"""A quantise step of a job: weights take values of fewer bits, and how they are stored is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from secateur.recipe_quantize import (
    Codebook,
    Int8Options,
    QuantizeOptions,
    StoredOptions,
    WeightOnly,
)
from secateur.report import QuantizationReport, QuantizedLayer
from torch import Tensor

from engine.errors import EngineError
from engine.job import Listener
from engine.pipeline.checkpoint import JobState
from engine.pipeline.int8 import int8_step
from engine.pipeline.output_error import output_error
from engine.pipeline.setup import Workbench
from engine.pipeline.steps import QuantizeStep
from engine.quantisation.codebook import codebook_of
from engine.quantisation.encoding import Encoding
from engine.quantisation.packaging import bigger
from engine.quantisation.quantisable import quantisable
from engine.quantisation.weight_only import encode_weight_only
from engine.torchscript.program import Program

Encoder = Callable[[str, Tensor, Tensor | None], Encoding]
"""Stores a weight, by its name, its value, and the mask that holds some of it at zero."""


class NothingQuantised(EngineError):
    """No weight would have fewer bits than before."""

    type = "nothing-quantized"


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
        return int8_step(bench, state, step, stage, listener)
    done = encode_weights(given, stage, state, encoder_of(stage, bench.recipe.seed))
    if not done.encodings:
        raise _nothing(stage, done.layers, step.field)
    state.program = done.program
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
        warnings=_warnings(done),
    )
    state.quantization.append(report)
    for warning in report.warnings:
        listener.log(f"{step.label}: {warning}")
    return report


def encoder_of(stage: QuantizeOptions, seed: int) -> Encoder:
    """How the scheme of a stage stores a weight."""
    if isinstance(stage, Codebook):

        def codebook(name: str, weight: Tensor, mask: Tensor | None) -> Encoding:
            return codebook_of(
                name,
                weight,
                size=stage.size,
                method=stage.method,
                start=stage.start,
                seed=seed,
                keep=mask,
                groups=min(stage.groups, weight.shape[0]),
                dtype=torch.float32 if stage.table == "float32" else torch.float16,
            )

        return codebook
    if isinstance(stage, WeightOnly):

        def weight_only(name: str, weight: Tensor, mask: Tensor | None) -> Encoding:
            return encode_weight_only(
                weight,
                bits=stage.bits,
                group_size=stage.group_size,
                symmetric=stage.symmetric,
                clip=stage.clip,
                keep_zeros=mask is not None,
                name=name,
            )

        return weight_only
    raise TypeError(f"`{type(stage).__name__}` stores no weights")


@torch.no_grad()
def encode_weights(
    given: Program, stage: StoredOptions, state: JobState, encode: Encoder
) -> _Outcome:
    """Encode what can be, and write the decoded values into a program of its own."""
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
