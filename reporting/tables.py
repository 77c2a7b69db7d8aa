"""What the report's tables and tiles say, ready to be written down."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from secateur.report import Frozen, LayerReport, Measurement, ObjectiveReport, Report
from secateur.report_base import CLASSIFICATION

from reporting import formatting, metric
from reporting.formatting import MISSING

MAX_NAMED_LAYERS = 6
"""Layers named per reason before the rest is only counted."""
LOST = 0.01
"""An accuracy that falls by more than this is shown as a loss; less is within the usual noise of
a validation split, and stays uncoloured."""


@dataclass(frozen=True)
class Row:
    """One line of the before/after table. `better` is None where neither word would be fair."""

    name: str
    before: str
    after: str
    change: str
    better: bool | None


@dataclass(frozen=True)
class Tile:
    """One headline number."""

    name: str
    value: str
    unit: str
    note: str
    better: bool | None


@dataclass(frozen=True)
class LatencyRow:
    """Latencies of one model at one batch size; `speedup` stands in the compact model's row."""

    batch_size: int
    model: str
    p50: str
    p90: str
    p99: str
    runs: str
    speedup: str


@dataclass(frozen=True)
class FrozenGroup:
    """Channels frozen for one reason by one operator."""

    op: str
    reason: str
    channels: int
    named: list[str]
    unnamed: int


@dataclass(frozen=True)
class LayerRow:
    """One weight tensor."""

    name: str
    shape_before: str
    shape_after: str
    kept: int
    total: int
    ratio: str
    removed: float


def _ratio_tile(name: str, value: float, words: tuple[str, str], note: str) -> Tile:
    """A ratio above one says the first word, below one its inverse says the second."""
    if f"{value:.2f}" == "1.00":
        return Tile(name, "1×", "the same", note, None)  # noqa: RUF001
    if value <= 0:
        return Tile(name, MISSING, "", note, None)
    shown, word = (value, words[0]) if value > 1 else (1 / value, words[1])
    return Tile(name, formatting.ratio(shown), word, note, value > 1)


def _gained(moved: float) -> bool | None:
    """Whether a change of accuracy is a gain, a loss, or neither."""
    return True if moved > 0 else False if moved < -LOST else None


def tiles(report: Report) -> list[Tile]:
    """The four or five numbers a reader came for."""
    before, after, verdict = report.before, report.after, report.verdict
    found = [
        _ratio_tile(
            "File size",
            verdict.file_ratio,
            ("smaller", "larger"),
            f"{formatting.size(before.file_bytes)} → {formatting.size(after.file_bytes)}",
        ),
        _ratio_tile(
            "Non-zero parameters",
            verdict.compression_ratio,
            ("fewer", "more"),
            f"{formatting.short(before.parameters)} → {formatting.short(after.nonzero_parameters)}",
        ),
        _ratio_tile(
            "Multiply-accumulates",
            verdict.theoretical_speedup,
            ("fewer", "more"),
            f"{formatting.short(before.macs)} → {formatting.short(after.macs)}",
        ),
    ]
    measured = sorted(verdict.measured_speedup.items(), key=lambda item: int(item[0]))
    if measured:
        batch_size, speedup = measured[0]
        found.append(
            _ratio_tile(
                "Measured speed",
                speedup,
                ("faster", "slower"),
                f"median latency, batch size {batch_size}",
            )
        )
    if before.accuracy is not None and after.accuracy is not None:
        moved = after.accuracy.top1 - before.accuracy.top1
        found.append(
            Tile(
                "Top-1 accuracy",
                formatting.signed(moved * 100, 2),
                "points",
                f"{formatting.percent(before.accuracy.top1, 2)} → "
                f"{formatting.percent(after.accuracy.top1, 2)}",
                _gained(moved),
            )
        )
    found.extend(_metric_tile(report))
    return found


def _metric_tile(report: Report) -> Iterator[Tile]:
    """The metric that decides, where that is not accuracy."""
    decides = report.objective.decides
    old, new = report.before.deciding, report.after.deciding
    if decides.name == "accuracy" or old is None or new is None:
        return
    moved = metric.difference(decides, old, new).rsplit(" ", 1)
    yield Tile(
        metric.title(decides),
        moved[0],
        moved[1] if len(moved) > 1 else "",
        f"{metric.shown(decides, old, None)} → {metric.shown(decides, new, None)}",
        metric.better(decides, old, new, lost=LOST),
    )


def _metric_rows(before: Measurement, after: Measurement, known: ObjectiveReport) -> Iterator[Row]:
    """Every metric but accuracy, which has its counts, and the loss, which has a row."""
    for one in known.metrics:
        old, new = before.metrics.get(one.name), after.metrics.get(one.name)
        if one.name in ("accuracy", "loss") or old is None or new is None:
            continue
        yield Row(
            metric.title(one),
            metric.shown(one, old, None),
            metric.shown(one, new, None),
            metric.difference(one, old, new),
            metric.better(one, old, new, lost=LOST),
        )


def _falling(name: str, before: float, after: float, shown: tuple[str, str]) -> Row:
    """A quantity that is better the lower it is."""
    better = None if before == after else after < before
    return Row(name, *shown, formatting.change(before, after), better)


def comparison(
    before: Measurement, after: Measurement, known: ObjectiveReport = CLASSIFICATION
) -> list[Row]:
    """The before/after table, with every metric of the objective."""
    rows = [
        _falling(
            "File size (bytes)",
            before.file_bytes,
            after.file_bytes,
            (formatting.integer(before.file_bytes), formatting.integer(after.file_bytes)),
        ),
        _falling(
            "Parameters",
            before.parameters,
            after.parameters,
            (formatting.integer(before.parameters), formatting.integer(after.parameters)),
        ),
        _falling(
            "Non-zero parameters",
            before.nonzero_parameters,
            after.nonzero_parameters,
            (
                formatting.integer(before.nonzero_parameters),
                formatting.integer(after.nonzero_parameters),
            ),
        ),
        _falling(
            "MACs of one sample",
            before.macs,
            after.macs,
            (formatting.integer(before.macs), formatting.integer(after.macs)),
        ),
    ]
    if before.loss is not None and after.loss is not None:
        # Accuracy decides; a loss may rise while it stays, so it takes no colour.
        rows.append(
            Row(
                "Validation loss",
                formatting.loss(before.loss),
                formatting.loss(after.loss),
                formatting.change(before.loss, after.loss),
                None,
            )
        )
    if before.accuracy is not None and after.accuracy is not None:
        moved = after.accuracy.top1 - before.accuracy.top1
        old, new = before.accuracy, after.accuracy
        rows.append(
            Row(
                "Top-1 accuracy",
                f"{old.correct:,} / {old.total:,} = {formatting.percent(old.top1, 2)}",
                f"{new.correct:,} / {new.total:,} = {formatting.percent(new.top1, 2)}",
                formatting.points(moved),
                _gained(moved),
            )
        )
    rows.extend(_metric_rows(before, after, known))
    compact = {row.batch_size: row for row in after.latency_ms}
    for row in before.latency_ms:
        if row.batch_size in compact:
            fast = compact[row.batch_size].p50
            rows.append(
                _falling(
                    f"Median latency, batch size {row.batch_size} (ms)",
                    row.p50,
                    fast,
                    (formatting.milliseconds(row.p50), formatting.milliseconds(fast)),
                )
            )
    return rows


def latencies(before: Measurement, after: Measurement) -> list[LatencyRow]:
    """Two lines per batch size: original and compact."""
    medians = {row.batch_size: row.p50 for row in before.latency_ms}
    rows: list[tuple[int, int, LatencyRow]] = []
    for order, (model, state) in enumerate((("original", before), ("compact", after))):
        for row in state.latency_ms:
            median = medians.get(row.batch_size) if model == "compact" else None
            rows.append(
                (
                    row.batch_size,
                    order,
                    LatencyRow(
                        row.batch_size,
                        model,
                        formatting.milliseconds(row.p50),
                        formatting.milliseconds(row.p90),
                        formatting.milliseconds(row.p99),
                        str(row.runs),
                        "" if median is None else formatting.ratio(median / row.p50),
                    ),
                )
            )
    return [row for _, _, row in sorted(rows, key=lambda item: item[:2])]


def frozen(entries: list[Frozen]) -> list[FrozenGroup]:
    """Frozen channels added up by operator and reason, most channels first."""
    groups: dict[tuple[str, str], list[Frozen]] = defaultdict(list)
    for entry in entries:
        groups[entry.op, entry.reason].append(entry)
    summed = []
    for (op, reason), members in groups.items():
        names = list(dict.fromkeys(member.layer for member in members))
        summed.append(
            FrozenGroup(
                op,
                reason,
                sum(member.channels for member in members),
                names[:MAX_NAMED_LAYERS],
                len(names[MAX_NAMED_LAYERS:]),
            )
        )
    return sorted(summed, key=lambda group: -group.channels)


def layer(row: LayerReport) -> LayerRow:
    """One line of the layer table."""
    total = prod(row.shape_before)
    return LayerRow(
        row.name,
        formatting.shape(row.shape_before),
        formatting.shape(row.shape_after),
        row.nonzero_after,
        total,
        formatting.ratio(total / row.nonzero_after) if row.nonzero_after else MISSING,
        row.removed_fraction,
    )
