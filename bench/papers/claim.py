"""What a claim of a paper is, for the runner and for the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from secateur.report import BaselineReport, Measurement, TicketRound

from bench.papers.jobs import Scale
from bench.papers.records import Record
from bench.papers.statistics import Difference, difference, figure_by_seed

Kind = Literal["percent", "number", "ratio"]


class RunVariant(Protocol):
    """Carries one variant out."""

    def __call__(self, variant: str, seed: int, scale: Scale) -> dict[str, float]:
        """Figures by name: accuracies and shares as fractions, counts as numbers."""


@dataclass(frozen=True)
class Column:
    """A figure on the page: `percent` of a fraction, a plain `number`, or a `ratio` such as 12x."""

    heading: str
    kind: Kind = "percent"


@dataclass(frozen=True)
class Finding:
    """One statement of the claim, held against the records by a rule.

    Attributes:
        statement: what the paper says.
        holds: whether the rule is met.
        numbers: the figures it was judged by, in words.
    """

    statement: str
    holds: bool
    numbers: str


@dataclass(frozen=True)
class Claim:
    """A claim, its variants and controls, and how to judge it.

    Attributes:
        name: of its module, and what `--only` takes.
        title: heading on the page.
        source: paper, venue and section.
        statement: what the paper claims.
        setting: how it was tried here, and what differs from the paper.
        variants: what is run, by name, with the words of the page, in the order of the page.
        columns: figures on the page by name.
        run: one variant with one seed.
        judge: findings from the records of this claim; every variant has at least two seeds.
        remark: said after the findings, where numbers alone would mislead.
    """

    name: str
    title: str
    source: str
    statement: str
    setting: str
    variants: Mapping[str, str]
    columns: Mapping[str, Column]
    run: RunVariant
    judge: Callable[[Sequence[Record]], list[Finding]]
    remark: str = field(default="")


def compared(records: Sequence[Record], a: str, b: str, figure: str = "accuracy") -> Difference:
    """The difference of a figure between two variants."""
    return difference(figure_by_seed(records, a, figure), figure_by_seed(records, b, figure))


def no_worse(
    records: Sequence[Record], a: str, b: str, statement: str, figure: str = "accuracy"
) -> Finding:
    """The finding that A is no worse than B."""
    found = compared(records, a, b, figure)
    return Finding(statement, found.no_worse, points(found))


def no_worse_than_dense(records: Sequence[Record], variant: str, statement: str) -> Finding:
    """The finding that a result is no worse than the dense network of the same seed."""
    after, dense = (figure_by_seed(records, variant, name) for name in ("accuracy", "dense"))
    found = difference(after, dense)
    return Finding(statement, found.no_worse, points(found))


def above(
    records: Sequence[Record], a: str, b: str, statement: str, figure: str = "accuracy"
) -> Finding:
    """The finding that A is above B."""
    found = compared(records, a, b, figure)
    return Finding(statement, found.above, points(found))


def top1(measured: Measurement | TicketRound | BaselineReport) -> float:
    """The accuracy in a report, as a fraction.

    Raises:
        ValueError: it was not measured.
    """
    if measured.accuracy is None:
        raise ValueError("the job measured no accuracy")
    return measured.accuracy.top1


def points(found: Difference) -> str:
    """A difference in points, as findings say it."""
    return (
        f"{100 * found.mean:+.2f} points, with 95 % confidence above "
        f"{100 * found.lowest:+.2f} ({found.seeds} seeds)"
    )
