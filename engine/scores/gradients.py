r"""Criteria of the loss: what removing a weight does to it, to first or second order.

With :math:`g = \partial L / \partial w` and :math:`h = \partial^2 L / \partial w^2`, the loss
after a change :math:`\delta` of one weight is :math:`L + g \delta + \frac12 h \delta^2`; removal
is :math:`\delta = -w`. Each criterion keeps one part of it:

    gradient:  |g|                  evaluate by gradient
    snip:      |g w|                Lee et al. 2019, SNIP (ICLR)
    taylor:    (sum g w)^2          Molchanov et al. 2019, Importance Estimation (CVPR), equation 8
    hessian:   h w^2 / 2            LeCun, Denker & Solla 1990, Optimal Brain Damage (NIPS)
    grasp:     w (H g)              Wang et al. 2020, GraSP (ICLR)

For channels the values of a slice are summed, and the slices of a channel aggregated. In
`taylor` the sum runs, with its signs, over all slices that are scored (`slices`, see
`engine.scores.channels`) and is squared last, for each batch anew; the mean over batches is the
score. The others average over the samples first: near a minimum the mean gradient vanishes, and
`gradient`, `snip` and `grasp` with it.

The diagonal h is the Fisher estimate, :math:`h = E[g_n^2]` over the gradients of single samples.
From batches of B samples it is taken as :math:`h = E_B[B\, g_B^2]`, which has the same mean when
the labels are drawn from the model (`target: teacher`): cross terms :math:`E[g_n g_m]` are then
zero. With `batch_size: 1` it is the empirical Fisher itself. Of a single weight both `taylor` and
this estimate are :math:`E[g^2] w^2`, and rank alike; for channels they do not.

GraSP's score in the paper is :math:`-w (H g)`, by how much the gradient flow
:math:`\lVert g \rVert^2 / 2` grows when the weight goes, and the highest go; here the lowest go,
and the sign is turned. H g is exact, by double backward. The logits are used as they are,
without the temperature of the authors' code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from engine.evidence.gradients import curvature_along, gradients
from engine.evidence.samples import Evidence
from engine.scores.registry import Criterion, Maps, register
from engine.torchscript.program import Program

_UNREACHED = "no gradient reaches these weights"


def _mean_gradient(program: Program, evidence: Evidence) -> Maps:
    mean: Maps = {}
    for share, _, maps in gradients(program, evidence):
        for name, gradient in maps.items():
            _add(mean, name, share * gradient.double())
    return mean


def _add(total: Maps, name: str, part: Tensor) -> None:
    total[name] = part if name not in total else total[name].add_(part)


def _of_the_mean(
    value: Callable[[Tensor, Tensor], Tensor],
) -> Callable[[Program, Evidence], Iterator[tuple[float, Maps]]]:
    """A saliency from the mean gradient and the weight."""

    def saliency(program: Program, evidence: Evidence) -> Iterator[tuple[float, Maps]]:
        weights = program.parameters()
        mean = _mean_gradient(program, evidence)
        yield 1.0, {name: value(mean.pop(name), _exact(weights[name])) for name in list(mean)}

    return saliency


def _taylor(program: Program, evidence: Evidence) -> Iterator[tuple[float, Maps]]:
    weights = program.parameters()
    for share, _, maps in gradients(program, evidence):
        yield (
            share,
            {name: gradient.double() * _exact(weights[name]) for name, gradient in maps.items()},
        )


def _hessian(program: Program, evidence: Evidence) -> Iterator[tuple[float, Maps]]:
    weights = program.parameters()
    fisher: Maps = {}
    for share, size, maps in gradients(program, evidence):
        for name, gradient in maps.items():
            _add(fisher, name, share * size * gradient.double().square())
    yield 1.0, {name: h * _exact(weights[name]).square() / 2 for name, h in fisher.items()}


def _grasp(program: Program, evidence: Evidence) -> Iterator[tuple[float, Maps]]:
    weights = program.parameters()
    flow: Maps = {}
    mean = _mean_gradient(program, evidence)
    for share, maps in curvature_along(program, evidence, mean):
        for name, product in maps.items():
            if name in mean:
                _add(flow, name, share * product.double())
    yield 1.0, {name: _exact(weights[name]) * product for name, product in flow.items()}


def _exact(weight: Tensor) -> Tensor:
    return weight.detach().double()


GRADIENT = register(
    Criterion("gradient", saliency=_of_the_mean(lambda g, _: g.abs()), lacking=_UNREACHED)
)
SNIP = register(
    Criterion("snip", saliency=_of_the_mean(lambda g, w: (g * w).abs()), lacking=_UNREACHED)
)
TAYLOR = register(Criterion("taylor", saliency=_taylor, squared=True, lacking=_UNREACHED))
HESSIAN = register(Criterion("hessian", saliency=_hessian, lacking=_UNREACHED))
GRASP = register(Criterion("grasp", saliency=_grasp, lacking=_UNREACHED))
