r"""Wanda: a weight matters as much as it is large and its input is driven.

    wanda:  s_ij = |W_ij| ||X_j||_2

with :math:`\lVert X_j \rVert_2` the norm of input feature j over all samples and positions (Sun et
al. 2024, "A Simple and Effective Pruning Approach for Large Language Models", ICLR). The sum over
a filter bounds what the filter can give: :math:`\lVert W_i X \rVert_2 \le \sum_j s_ij`. The paper
compares weights within one output row; here a layer's weights are ranked together. Weights whose
input is no feature (embeddings, recurrent layers, position tables) have no score and stay.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.evidence.inputs import input_norms
from engine.evidence.samples import Evidence
from engine.scores.registry import Criterion, Maps, register
from engine.torchscript.program import Program


def _wanda(program: Program, evidence: Evidence) -> Iterator[tuple[float, Maps]]:
    weights = program.parameters()
    norms = input_norms(program, evidence)
    yield (
        1.0,
        {
            name: weights[name].detach().double().abs() * norm.to(weights[name].device)
            for name, norm in norms.items()
        },
    )


WANDA = register(
    Criterion(
        "wanda",
        saliency=_wanda,
        lacking="no linear layer, matrix product or convolution reads these weights, so `wanda` "
        "knows no input of theirs",
    )
)
