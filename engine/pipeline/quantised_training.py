"""The training within a quantise stage: which weights follow from what, and what is stored after.

Weights of this stage are trained in the form that they are stored in (see
`engine.quantisation.shared_centroids` and `engine.quantisation.straight_through`); those of earlier
stages stay as they are. What is not quantised is trained as ever.
"""

from __future__ import annotations

from torch import Tensor

from engine.pipeline.checkpoint import JobState
from engine.pipeline.quantize import Encoder, encoder_of
from engine.pipeline.steps import FinetuneStep
from engine.quantisation.codebook import Codebook
from engine.quantisation.encoding import Encoding
from engine.quantisation.fixed import Fixed
from engine.quantisation.reparametrisation import Reparametrisation
from engine.quantisation.shared_centroids import SharedCentroids
from engine.quantisation.straight_through import StraightThrough
from engine.training.latents import encodings_of
from engine.training.run import Trained, TrainingRun


def reparametrised(
    state: JobState, step: FinetuneStep, *, seed: int
) -> dict[str, Reparametrisation]:
    """How the weights follow from what moves, in a training within a quantise stage.

    Args:
        state: after the step that quantised.
        step: the training.
        seed: of the recipe.
    """
    stage = step.quantized
    if stage is None:
        return {}
    encode = encoder_of(stage, seed)
    return {
        name: _rule(name, encoding, state, encode)
        if name in state.quantised.trained
        else Fixed(encoding)
        for name, encoding in state.quantised.encodings.items()
    }


def keep_quantised(state: JobState, step: FinetuneStep, run: TrainingRun, trained: Trained) -> None:
    """Take over how the weights of a training are stored."""
    quantised = state.quantised
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
                if layer.form == "encoded"
                else layer
                for layer in report.layers
            ]
            state.quantization[number] = report.model_copy(
                update={"layers": layers, "trained": True}
            )


def _rule(name: str, encoding: Encoding, state: JobState, encode: Encoder) -> Reparametrisation:
    if isinstance(encoding, Codebook):
        return SharedCentroids(encoding)
    mask = state.masks.get(name)

    def encoded(weight: Tensor) -> Encoding:
        return encode(name, weight, mask)

    return StraightThrough(
        lambda weight: encoded(weight).decode(),
        encode=encoded,
        start=state.quantised.trained[name],
    )
