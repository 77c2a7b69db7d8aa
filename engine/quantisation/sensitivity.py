r"""What a model loses when weights, or layers, are stored or computed in another format.

One at a time: with y the outputs of the model as it is and :math:`y_{lf}` those with layer l alone
in format f, the sensitivity is

.. math:: s_{lf} = \frac{\|y_{lf} - y\|^2}{\|y\|^2} \quad \text{or} \quad
    s_{lf} = \max(0, L_{lf} - L)

over all samples: the square of the drift, which needs no labels, or the rise of the loss. Why the
square: with the errors :math:`e_l` that the layers put into the outputs,
:math:`\|\sum_l e_l\|^2 = \sum_l \|e_l\|^2` as long as they are uncorrelated, as rounding errors of
different weights nearly are. So sensitivities add up, and a drift of d for all together is a
budget of :math:`d^2`. It is measured rather than taken from the Hessian (Dong et al. 2019, HAWQ):
one run over the samples is exact at any size of the error, and 2 bits are no small ones.

All together: the sum is a prediction. `fit_to_limit` promises a measured loss: it looks for the
budget of the sum under which the model with all formats in place, run over the samples, keeps
within the limit.

Whoever quantises layers in any way asks this module: it knows formats by name alone, and how to
build a model that has some of its layers in them is given by the caller.

    formats = {"conv1.weight": ["8", "4", "keep"], ...}
    table = measure_sensitivities(judge, build, formats)
    fitted = fit_to_limit(table, costs, lost, Limit("drift", 0.01), whole)

A stage that falls back to higher precision where a layer collapses is the same with two formats,
its own and `keep`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from engine.quantisation.bit_allocation import Allocation, Budget, Format, Table, choose_bits
from engine.quantisation.encoding import Encoding
from engine.scan.layers import Forward, forward_of
from engine.scan.measuring import Judge, Measured
from engine.torchscript.program import Program, memory_of

KEEP: Format = "keep"
"""The layer as it is."""

Build = Callable[[Mapping[str, Format]], Forward]
"""The model with these layers in these formats and all others as they are."""
Quantity = Literal["drift", "loss", "accuracy", "metric"]

_PROBES = 10
_HALVINGS = 40


@dataclass(frozen=True)
class Limit:
    """How much all formats together may lose.

    Attributes:
        of: the drift of the outputs (relative, of all samples), the loss, top-1 accuracy as a
            fraction, or the metric that decides.
        most: in the unit of the quantity.
        higher_is_better: the direction of the metric.
    """

    of: Quantity
    most: float
    higher_is_better: bool = True

    def lost(self, whole: Measured, found: Measured) -> float:
        """What is lost; infinite where the model gives no finite number.

        Args:
            whole, found: measured of the model as it is, and in other formats.
        """
        if self.of == "drift":
            return math.inf if found.drift is None else found.drift
        if self.of == "loss":
            return _difference(found.loss, whole.loss)
        if self.of == "metric":
            change = _difference(whole.metric, found.metric)
            return change if self.higher_is_better or change == math.inf else -change
        before = None if whole.accuracy is None else whole.accuracy.top1
        after = None if found.accuracy is None else found.accuracy.top1
        return _difference(before, after)

    def kept(self, lost: float) -> bool:
        """Whether a loss is within the limit, up to the rounding of a float."""
        return lost <= self.most * (1 + 1e-9) + 1e-12


@dataclass(frozen=True)
class Trial:
    """One choice of formats that was measured."""

    allocation: Allocation
    lost: float


@dataclass(frozen=True)
class Fitted:
    """The smallest measured choice that keeps within a limit.

    Attributes:
        allocation: formats, bytes and the sum of sensitivities.
        lost: measured with all formats in place.
        trials: all that were measured, in order.
    """

    allocation: Allocation
    lost: float
    trials: list[Trial] = field(default_factory=list)


class LimitOutOfReach(ValueError):
    """Even the formats that lose least lose too much.

    Attributes:
        least: what they lose, measured.
    """

    def __init__(self, limit: Limit, least: float) -> None:
        super().__init__(f"the formats that lose least lose {least:.3g} of {limit.of}")
        self.limit = limit
        self.least = least


def build_from(
    program: Program, encodings: Mapping[str, Mapping[Format, Encoding | None]]
) -> Build:
    """Models whose weights have the values of their stored forms.

    Args:
        program: stays as it is.
        encodings: of each weight in each format, by name; None is the weight as it is. A tied
            weight changes under all of its names.
    """

    @torch.no_grad()
    def build(formats: Mapping[str, Format]) -> Forward:
        held = program.attributes()
        decoded = {
            memory_of(held[name]): encoding.decode().to(held[name].device)
            for name, form in formats.items()
            if (encoding := encodings[name][form]) is not None
        }
        shadow = program.twin(share=True)
        for name, tensor in held.items():
            if memory_of(tensor) in decoded:
                shadow.set_tensor(name, decoded[memory_of(tensor)])
        return forward_of(shadow)

    return build


def measure_sensitivities(
    judge: Judge,
    build: Build,
    formats: Mapping[str, Sequence[Format]],
    *,
    of: Literal["drift", "loss"] = "drift",
    whole: Measured | None = None,
    advanced: Callable[[int, int], None] | None = None,
) -> dict[str, dict[Format, float]]:
    """The sensitivity of each layer in each format, all others as they are.

    Args:
        judge: has the samples; measures the same quantity.
        build: the model with one layer in a format.
        formats: by layer; `keep` costs no run.
        of: the quantity.
        whole: what the judge says of the model as it is, for losses.
        advanced: told of runs done, of how many.

    Returns:
        By layer and format, 0 or more; infinite where the outputs are not finite.
    """
    total = sum(form != KEEP for own in formats.values() for form in own)
    done = 0
    table: dict[str, dict[Format, float]] = {}
    for layer, own in formats.items():
        table[layer] = {}
        for form in own:
            if form == KEEP:
                table[layer][form] = 0.0
                continue
            found = judge.measure(build({layer: form}))
            lost = Limit(of, 0.0).lost(whole or Measured(), found)
            table[layer][form] = lost**2 if of == "drift" else max(0.0, lost)
            done += 1
            if advanced is not None:
                advanced(done, total)
    return table


def predicted(sensitivity: float, of: Literal["drift", "loss"]) -> float:
    """What a sum of sensitivities says all formats together lose, in the unit of the quantity."""
    return math.sqrt(sensitivity) if of == "drift" else sensitivity


def fit_to_limit(
    costs: Table,
    sensitivities: Table,
    limit: Limit,
    measure: Callable[[Mapping[str, Format]], float],
) -> Fitted:
    """The smallest choice of formats whose measured loss is within a limit.

    Bisection on the budget of the sum of sensitivities; at each one the integer program gives the
    smallest choice, and the model in it is measured. What is returned was measured and keeps the
    limit. That nothing smaller keeps it holds as far as the loss grows with the sum.

    Args:
        costs: bytes by layer and format.
        sensitivities: the same layers and formats.
        limit: on what `measure` gives.
        measure: what the model loses with all layers in these formats.

    Raises:
        LimitOutOfReach: the formats that lose least break the limit.
    """
    trials: dict[tuple[tuple[str, Format], ...], Trial] = {}

    def tried(allocation: Allocation) -> Trial:
        key = tuple(allocation.formats.items())
        if key not in trials:
            trials[key] = Trial(allocation, measure(allocation.formats))
        return trials[key]

    def within(budget: float) -> Allocation:
        return choose_bits(costs, sensitivities, Budget("sensitivity", budget))

    smallest = tried(within(math.inf))
    if limit.kept(smallest.lost):
        return Fitted(smallest.allocation, smallest.lost, list(trials.values()))
    best = tried(within(_least(sensitivities)))
    if not limit.kept(best.lost):
        raise LimitOutOfReach(limit, best.lost)
    low, high = best.allocation.sensitivity, smallest.allocation.sensitivity
    floor = _smallest_above_zero(sensitivities)
    guess = limit.most**2 if limit.of == "drift" else math.sqrt(max(low, floor) * high)
    for _ in range(_HALVINGS):
        if not low < guess < high:
            guess = math.sqrt(max(low, floor / 2) * high)
        if not low < guess < high or high < 1.0001 * low or len(trials) >= _PROBES:
            break
        found = within(guess)
        # A choice already measured tells nothing new: no other lies between it and the guess.
        trial = tried(found)
        if limit.kept(trial.lost):
            low = guess
            if found.bytes < best.allocation.bytes:
                best = trial
        else:
            high = min(guess, found.sensitivity)
        guess = math.sqrt(max(low, floor / 2) * high)
    return Fitted(best.allocation, best.lost, list(trials.values()))


def _least(sensitivities: Table) -> float:
    return math.fsum(min(own.values()) for own in sensitivities.values())


def _smallest_above_zero(sensitivities: Table) -> float:
    figures = [value for own in sensitivities.values() for value in own.values() if value > 0]
    return min((value for value in figures if value < math.inf), default=1.0)


def _difference(larger: float | None, smaller: float | None) -> float:
    """Infinite where one of the two is not known."""
    return math.inf if larger is None or smaller is None else larger - smaller
