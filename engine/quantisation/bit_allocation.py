r"""Which format each weight is stored in, under a budget: a small integer program.

With :math:`c_{lf}` the bytes of weight l in format f and :math:`s_{lf}` its sensitivity, what the
model loses when l alone is in f, choose one format for each weight,

.. math:: \min_x \sum_{lf} s_{lf} x_{lf} \quad \text{such that} \quad
    \sum_{lf} c_{lf} x_{lf} \le B, \quad \sum_f x_{lf} = 1, \quad x_{lf} \in \{0, 1\},

the multiple-choice knapsack problem (Sinha and Zoltners 1979), or with the roles of c and s
exchanged: the fewest bytes that keep the sum of sensitivities within S. The sum stands for the
loss of all weights together, as it does for small and independent errors (Dong et al. 2019,
"HAWQ-V2", take the same sum of one-layer terms); whoever promises a loss measures the result.

HiGHS solves it, by branch and bound to a gap of zero. A solver works within tolerances, so what it
gives is added up again here: integers exactly, fractions in full precision.

Among choices of the same objective the one that uses less of the budget is taken.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

Format = str
"""A name for a way to store a weight: `8`, `4`, `float16`, `keep`."""
Table = Mapping[str, Mapping[Format, float]]
"""By weight and format. Formats may differ from weight to weight."""


@dataclass(frozen=True)
class Budget:
    """What may be spent: bytes of all weights together, or the sum of their sensitivities."""

    of: Literal["bytes", "sensitivity"]
    limit: float


@dataclass(frozen=True)
class Allocation:
    """A format for each weight.

    Attributes:
        formats: by weight.
        bytes: of all weights together.
        sensitivity: the sum over all weights.
    """

    formats: dict[str, Format]
    bytes: int
    sensitivity: float


class BudgetTooSmall(ValueError):
    """No choice keeps within the budget.

    Attributes:
        smallest: what the thriftiest choice needs.
    """

    def __init__(self, budget: Budget, smallest: float) -> None:
        super().__init__(
            f"no choice of formats keeps within {budget.limit:g} ({budget.of}); the smallest "
            f"possible is {smallest:g}"
        )
        self.budget = budget
        self.smallest = smallest


@dataclass(frozen=True)
class _Option:
    weight: int
    format: Format
    bytes: float
    sensitivity: float

    def of(self, quantity: str) -> float:
        return self.bytes if quantity == "bytes" else self.sensitivity


def choose_bits(costs: Table, sensitivities: Table, budget: Budget) -> Allocation:
    """Choose a format for each weight.

    Args:
        costs: bytes, whole numbers.
        sensitivities: not below 0; infinite where a format cannot be used. The same weights and
            formats as `costs`.
        budget: what may be spent; the other of the two is made as small as it can be.

    Raises:
        BudgetTooSmall: no choice keeps within the budget.
        ValueError: a figure is NaN or negative, a table lacks what the other has, or a weight has
            no format left.
    """
    names = list(costs)
    options = _options(costs, sensitivities)
    aim = "sensitivity" if budget.of == "bytes" else "bytes"
    smallest = _total(_thriftiest(options, budget.of), budget.of)
    if not smallest <= budget.limit:
        raise BudgetTooSmall(budget, smallest)
    chosen = _thriftiest(options, aim)
    if not _total(chosen, budget.of) <= budget.limit:
        chosen = _solved(options, aim, budget.of, budget.limit, chosen)
        # The same objective for less of the budget, where there is such a choice.
        chosen = _solved(options, budget.of, aim, _total(chosen, aim), chosen)
    return Allocation(
        formats={names[option.weight]: option.format for option in chosen},
        bytes=int(_total(chosen, "bytes")),
        sensitivity=_total(chosen, "sensitivity"),
    )


def _options(costs: Table, sensitivities: Table) -> list[list[_Option]]:
    """By weight, those that no other one of the weight beats in both, from small to large."""
    if costs.keys() != sensitivities.keys():
        raise ValueError("costs and sensitivities must be of the same weights")
    found = []
    for number, (name, by_format) in enumerate(costs.items()):
        known = sensitivities[name]
        if by_format.keys() != known.keys():
            raise ValueError(f"{name}: costs and sensitivities must be of the same formats")
        own = [_Option(number, form, cost, known[form]) for form, cost in by_format.items()]
        for option in own:
            if not (0 <= option.bytes < math.inf and option.sensitivity >= 0):
                raise ValueError(
                    f"{name} in format {option.format}: {option.bytes} bytes and a sensitivity of "
                    f"{option.sensitivity} are no figures to choose by"
                )
        best: list[_Option] = []
        for option in sorted(own, key=lambda one: (one.bytes, one.sensitivity)):
            if option.sensitivity < (best[-1].sensitivity if best else math.inf):
                best.append(option)
        if not best:
            raise ValueError(f"{name} has no format that can be used")
        found.append(best)
    return found


def _thriftiest(options: list[list[_Option]], quantity: str) -> list[_Option]:
    """Of each weight what has least of a quantity."""
    return [min(own, key=lambda one: one.of(quantity)) for own in options]


def _total(chosen: list[_Option], quantity: str) -> float:
    return math.fsum(option.of(quantity) for option in chosen)


def _solved(
    options: list[list[_Option]], aim: str, bound: str, limit: float, known: list[_Option]
) -> list[_Option]:
    """The least of `aim` with no more than `limit` of `bound`.

    Args:
        known: returned where it keeps within the limit and the solver finds nothing better.
    """
    flat = [option for own in options for option in own]
    # a fifth of a second that jobs without such a choice need not wait
    from scipy.optimize import Bounds, LinearConstraint, milp  # noqa: PLC0415

    one_each = csr_array(
        (np.ones(len(flat)), ([option.weight for option in flat], range(len(flat))))
    )
    wanted = _scaled(np.array([option.of(aim) for option in flat]), 1e6)
    spent = np.array([option.of(bound) for option in flat])
    best = known if _total(known, bound) <= limit else _thriftiest(options, bound)
    # The solver's tolerance may pass the limit by a little; then it is given that much less.
    allowed = limit
    for _ in range(20):
        unit = max(float(spent.max()), abs(allowed)) or 1.0
        found = milp(
            wanted,
            integrality=np.ones(len(flat)),
            bounds=Bounds(0, 1),
            constraints=[
                LinearConstraint(one_each, 1, 1),
                LinearConstraint(spent[None, :] / unit * 1e3, -np.inf, allowed / unit * 1e3),
            ],
            options={"mip_rel_gap": 0.0},
        )
        if found.x is None:
            break
        chosen = [option for option, x in zip(flat, found.x, strict=True) if x > 0.5]
        excess = _total(chosen, bound) - limit
        if excess <= 0:
            return chosen if _total(chosen, aim) < _total(best, aim) else best
        allowed -= max(excess, 2e-9 * abs(limit))
    return best


def _scaled(values: NDArray[np.float64], largest: float) -> NDArray[np.float64]:
    """The same proportions with this largest value: gaps of solvers are absolute."""
    top = float(values.max())
    return values * (largest / top) if top > 0 else values
