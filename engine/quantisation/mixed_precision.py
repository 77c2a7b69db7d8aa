"""A format for each weight, chosen by what the model loses by it.

Each weight is encoded in every format that makes it smaller, the model is measured with one of
them at a time (`engine.quantisation.sensitivity`), and an integer program chooses
(`engine.quantisation.bit_allocation`): under a budget of bytes what loses least, under a limit of
what may be lost the fewest bytes, held against a measurement of all weights together.

A stage of one format that falls back where a layer collapses is the same choice between that
format, finer ones and the weight as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from engine.errors import EngineError
from engine.quantisation.bit_allocation import (
    Allocation,
    Budget,
    BudgetTooSmall,
    Format,
    Table,
    choose_bits,
)
from engine.quantisation.encoding import Encoding
from engine.quantisation.sensitivity import (
    KEEP,
    Limit,
    LimitOutOfReach,
    Quantity,
    Trial,
    build_from,
    fit_to_limit,
    measure_sensitivities,
)
from engine.quantisation.sensitivity import predicted as predicted_by
from engine.scan.layers import forward_of
from engine.scan.measuring import Judge, Measured
from engine.torchscript.program import Program

Encode = Callable[[str, Tensor, Format], Encoding | str]
"""Stores a weight, by its name and value, in a format; or says why it cannot."""
Judges = Callable[[Quantity], Judge]
"""Has the samples; gives who measures a quantity on them."""


class BudgetOutOfReach(EngineError):
    """No choice of formats keeps the budget, or the limit on what may be lost."""

    type = "budget-out-of-reach"


@dataclass(frozen=True)
class Candidates:
    """The stored forms of weights in several formats.

    Attributes:
        encodings: by weight and format; None is the weight as it is.
        dense: bytes of the weights as they are.
        reasons: by weight, why it has no format but `keep`.
    """

    encodings: dict[str, dict[Format, Encoding | None]] = field(default_factory=dict)
    dense: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def bytes(self) -> dict[str, dict[Format, int]]:
        """What each form takes."""
        return {
            name: {
                form: self.dense[name] if one is None else one.stored_bytes
                for form, one in own.items()
            }
            for name, own in self.encodings.items()
        }

    @property
    def whole(self) -> int:
        """Bytes of all weights as they are."""
        return sum(self.dense.values())


@dataclass(frozen=True)
class Chosen:
    """Formats, and what they were chosen by.

    Attributes:
        allocation: the choice.
        sensitivities: by weight and format, measured one at a time, see
            `engine.quantisation.sensitivity`.
        predicted: what the sum of sensitivities says all together lose, in the unit of the
            sensitivities' quantity.
        measured: the same quantity with all formats in place; infinite where the outputs are.
        lost: of the limit's quantity, measured; None under a budget of bytes.
        trials: choices that were measured on the way.
    """

    allocation: Allocation
    sensitivities: dict[str, dict[Format, float]]
    predicted: float
    measured: float
    lost: float | None = None
    trials: list[Trial] = field(default_factory=list)


def candidates(
    weights: Mapping[str, Tensor], formats: Sequence[Format], encode: Encode
) -> Candidates:
    """Encode each weight in each format; only what makes it smaller counts.

    Args:
        weights: by name.
        formats: `keep` among them leaves the choice to keep a weight as it is; a weight that no
            other format makes smaller stays in any case.
        encode: for all formats but `keep`.
    """
    found = Candidates()
    for name, weight in weights.items():
        dense = found.dense[name] = weight.numel() * weight.element_size()
        own: dict[Format, Encoding | None] = {}
        reasons = []
        for form in formats:
            if form == KEEP:
                continue
            made = encode(name, weight, form)
            if isinstance(made, str):
                reasons.append(made)
            elif made.stored_bytes >= dense:
                reasons.append(
                    f"it would take {made.stored_bytes:,} bytes with its scales and tables, and "
                    f"has {dense:,} now"
                )
            else:
                own[form] = made
        if not own:
            found.reasons[name] = reasons[0] if reasons else "no format but its own is offered"
        if not own or KEEP in formats:
            own[KEEP] = None
        found.encodings[name] = own
    return found


def choose_formats(
    program: Program,
    offered: Candidates,
    judges: Judges,
    rule: Budget | Limit,
    *,
    by: Literal["drift", "loss"] = "drift",
    field: str = "",
    advanced: Callable[[int, int], None] | None = None,
) -> Chosen:
    """Choose a format for each weight.

    Args:
        program: stays as it is.
        offered: the stored forms.
        judges: measure on the samples of the choice.
        rule: a budget of bytes of these weights, or a limit of what all together may lose.
        by: what sensitivities measure. A limit on a drift needs `drift`.
        field: of the recipe that gives the rule, for errors.
        advanced: told of runs done, of how many, while sensitivities are measured.

    Raises:
        BudgetOutOfReach: the smallest forms are bigger than the budget, or the finest lose more
            than the limit allows. Says what is possible.
    """
    build = build_from(program, offered.encodings)
    judge = judges(by)
    whole = judge.measure(forward_of(program)) if by != "drift" else Measured()
    if isinstance(rule, Budget):
        # Before anything is measured.
        nothing = {name: dict.fromkeys(own, 0.0) for name, own in offered.encodings.items()}
        _within(offered, nothing, rule, field)
    table = measure_sensitivities(
        judge,
        build,
        {name: list(own) for name, own in offered.encodings.items()},
        of=by,
        whole=whole,
        advanced=advanced,
    )
    for name, own in table.items():
        if math.inf in own.values() and min(own.values()) == math.inf:
            raise BudgetOutOfReach(
                f"the outputs are not finite with `{name}` in any of its formats",
                hint="offer `keep` or more bits, or `exclude` the layer",
                where=field,
            )
    lost, trials = None, list[Trial]()
    if isinstance(rule, Budget):
        allocation = _within(offered, table, rule, field)
    else:
        limiting = judge if rule.of == by else judges(rule.of)
        before = whole
        if rule.of not in (by, "drift"):
            before = limiting.measure(forward_of(program))
        try:
            fitted = fit_to_limit(
                offered.bytes,
                table,
                rule,
                lambda formats: rule.lost(before, limiting.measure(build(formats))),
            )
        except LimitOutOfReach as error:
            raise BudgetOutOfReach(
                f"the formats that lose least still lose {error.least:.3g} of {rule.of}, and "
                f"{rule.most:g} is allowed",
                hint="allow more, or offer `keep`, which leaves a weight as it is",
                where=field,
            ) from error
        allocation, lost, trials = fitted.allocation, fitted.lost, fitted.trials
    return Chosen(
        allocation,
        table,
        predicted=predicted_by(allocation.sensitivity, by),
        measured=Limit(by, 0.0).lost(whole, judge.measure(build(allocation.formats))),
        lost=lost,
        trials=trials,
    )


def _within(offered: Candidates, table: Table, budget: Budget, field: str) -> Allocation:
    try:
        return choose_bits(offered.bytes, table, budget)
    except BudgetTooSmall as error:
        whole = offered.whole
        raise BudgetOutOfReach(
            f"the weights cannot be stored in {int(budget.limit):,} bytes; the smallest possible "
            f"is {int(error.smallest):,}, {error.smallest / max(whole, 1):.1%} of the {whole:,} "
            "they have now",
            hint="raise the budget, offer fewer bits, or use larger groups, which have fewer "
            "scales",
            where=field,
        ) from error
