"""The training within a quantise stage: which weights follow from what, and what is stored after.

Weights of this stage are trained in the form that they are stored in (see
`engine.quantisation.shared_centroids` and `engine.quantisation.straight_through`); those of earlier
stages stay as they are. What is not quantised is trained as ever.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from secateur.recipe_quantize import MixedPrecision, StoredOptions
from secateur.recipe_quantize import StaticInt8 as StaticStage
from secateur.recipe_quantize import WeightOnly as WeightOnlyStage
from torch import Tensor

from engine.pipeline.checkpoint import JobState
from engine.pipeline.steps import FinetuneStep
from engine.quantisation.codebook import Codebook
from engine.quantisation.encoding import Encoding
from engine.quantisation.fixed import Fixed
from engine.quantisation.half import Half, HalfKind, to_half
from engine.quantisation.int8.lowerings import StaticInt8
from engine.quantisation.int8.training import Int8Training
from engine.quantisation.reparametrisation import Reparametrisation
from engine.quantisation.shared_centroids import SharedCentroids
from engine.quantisation.straight_through import StraightThrough
from engine.quantisation.weight_only import Bits, WeightOnly, encode_weight_only
from engine.torchscript.program import Program
from engine.training.latents import encodings_of
from engine.training.run import Trained, TrainingRun


def reparametrised(state: JobState, step: FinetuneStep) -> dict[str, Reparametrisation]:
    """How the weights follow from what moves, in a training within a quantise stage.

    Args:
        state: after the step that quantised.
        step: the training.
    """
    stage = step.quantized
    if stage is None:
        return {}
    if isinstance(stage, StaticStage):
        return dict(_int8(state).rules)
    return {
        name: _rule(name, encoding, state, stage)
        if name in state.quantised.trained
        else Fixed(encoding)
        for name, encoding in state.quantised.encodings.items()
    }


def program_of(state: JobState, step: FinetuneStep, begun: Program) -> Program:
    """What such a training begins with.

    Args:
        state: after the step that quantised.
        step: the training.
        begun: what another training would begin with.
    """
    return _int8(state).program if isinstance(step.quantized, StaticStage) else begun


def _int8(state: JobState) -> Int8Training:
    lowering = state.quantised.lowering
    if not isinstance(lowering, StaticInt8):
        raise TypeError("a training for int8 without ranges")
    return Int8Training.of(state.program, lowering)


def keep_quantised(
    state: JobState, before: Program, step: FinetuneStep, run: TrainingRun, trained: Trained
) -> None:
    """Take over how the weights of a training are stored.

    Args:
        state: with the program that was trained.
        before: the state's program before that.
        step: the training.
        run: of it.
        trained: what it gave.
    """
    quantised = state.quantised
    if isinstance(quantised.lowering, StaticInt8) and isinstance(step.quantized, StaticStage):
        plan = Int8Training.of(before, quantised.lowering)
        state.program, quantised.lowering = plan.finished(trained.program)
    quantised.encodings |= encodings_of(
        run.reparametrised, trained.latents, trained.program.parameters()
    )
    quantised.trained = {}
    for number, report in enumerate(state.quantization):
        if report.stage_index == step.stage_index:
            layers = [
                layer.model_copy(
                    update={
                        "bits": quantised.encodings[layer.name].bits,
                        "bytes_after": quantised.encodings[layer.name].stored_bytes,
                    }
                )
                if layer.name in quantised.encodings
                else layer
                for layer in report.layers
            ]
            state.quantization[number] = report.model_copy(
                update={"layers": layers, "trained": True}
            )


def _rule(
    name: str, encoding: Encoding, state: JobState, stage: StoredOptions
) -> Reparametrisation:
    if isinstance(encoding, Codebook):
        return SharedCentroids(encoding)
    encode = _again(name, encoding, stage)
    return StraightThrough(
        lambda weight: encode(weight).decode(),
        encode=encode,
        start=state.quantised.trained[name],
    )


def _again(name: str, encoding: Encoding, stage: StoredOptions) -> Callable[[Tensor], Encoding]:
    """Encodes other values in the form that a weight has; stages may give each its own."""
    if isinstance(encoding, Half):
        kind: HalfKind = "fp16" if encoding.half.dtype == torch.float16 else "bf16"
        return lambda weight: to_half(name, weight, kind)
    if not isinstance(encoding, WeightOnly):
        raise TypeError(f"`{encoding.scheme}` is not trained")
    bits: Bits = encoding.width  # type: ignore[assignment]
    clip = stage.clip if isinstance(stage, WeightOnlyStage | MixedPrecision) else "none"
    return lambda weight: encode_weight_only(
        weight,
        bits=bits,
        group_size=encoding.group_size,
        symmetric=encoding.symmetric,
        clip=clip,
        name=name,
    )
