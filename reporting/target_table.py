"""The table of targets: what each stage was to bring a cost down to, and what it reached."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.report import TargetReport

from reporting import formatting
from reporting.formatting import MISSING

_NAMES = {"params": "parameters", "macs": "MACs", "bytes": "bytes", "latency_ms": "milliseconds"}


@dataclass(frozen=True)
class TargetRow:
    """One stage."""

    stage: int
    cost: str
    before: str
    asked: str
    reached: str
    matched: str
    final: str = MISSING


def target_rows(targets: list[TargetReport]) -> list[TargetRow]:
    """In the order of the stages."""
    return [
        TargetRow(
            stage=one.stage_index + 1,
            cost=_cost(one),
            before=_number(one, one.before),
            asked=_number(one, one.asked)
            + ("" if one.share is None else f" ({formatting.percent(one.share)})"),
            reached=MISSING if one.reached is None else _number(one, one.reached),
            matched=_matched(one),
            final=MISSING if one.final is None else _number(one, one.final),
        )
        for one in targets
    ]


def _cost(target: TargetReport) -> str:
    name = _NAMES[target.of]
    if target.batch_size is None:
        return name
    return f"{name} at batch {target.batch_size}, {target.measured} measurements"


def _number(target: TargetReport, value: float) -> str:
    if target.of == "latency_ms":
        return f"{formatting.milliseconds(value)} ms"
    return f"{value:,.0f}"


def _matched(target: TargetReport) -> str:
    if target.matched:
        return "yes"
    if target.reached is None or target.reached > target.asked:
        return "NOT MET"
    return f"no, {formatting.percent(1 - target.reached / target.asked)} less than asked"
