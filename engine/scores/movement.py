r"""Movement: what training drives towards zero goes, however large it is.

    movement:  S = - sum_t w_t g_t    over the steps t of a training

with :math:`g_t` the gradient of the loss (`engine.training.movement` has the derivation). Where a
schedule trains between its rounds, S is what that training accumulated. Before a first round, or
with `one_shot`, nothing has been trained yet: a copy is, by plain gradient descent on the samples
of `scoring`, in evaluation mode, and thrown away. With one step this is the first-order change of
the loss, -w g, with its sign.

S has a sign. For channels the values of a slice are summed, and the slices of a channel aggregated:
by default summed too, so that S is by how much the loss drives the whole channel.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.evidence.gradients import descent
from engine.evidence.samples import Evidence
from engine.scores.registry import Criterion, Maps, register
from engine.torchscript.program import Program
from engine.training.movement import add_movement


def _movement(program: Program, evidence: Evidence) -> Iterator[tuple[float, Maps]]:
    if evidence.movement is not None:
        yield 1.0, dict(evidence.movement)
        return
    scores: Maps = {}
    for weights, gradients in descent(program, evidence):
        for name, gradient in gradients.items():
            add_movement(scores, name, weights[name], gradient)
    yield 1.0, scores


MOVEMENT = register(
    Criterion(
        "movement",
        saliency=_movement,
        lacking="training moves none of these weights: they are frozen, or no gradient reaches "
        "them",
    )
)
