"""The report's pictures. Each returns inline SVG, or None where there is nothing to draw."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FuncFormatter,
    MaxNLocator,
    MultipleLocator,
    NullFormatter,
    PercentFormatter,
)
from secateur.report import Histogram, Latency, LayerReport, Measurement, Report

from reporting import metric
from reporting.formatting import milliseconds, short
from reporting.svg import (
    AFTER,
    BEFORE,
    FULL_WIDTH,
    INK,
    MUTED,
    figure_style,
    inline,
    legend_above,
)

MAX_LABELS = 12
"""Steps named on an axis; more of them are numbered."""
MAX_WHISKER = 2.5
"""End of a latency axis, in units of the slower median."""


def latency(before: Measurement, after: Measurement) -> Markup | None:
    """Bars from zero to the median, whiskers to p90 and p99, one panel per batch size."""
    originals = {row.batch_size: row for row in before.latency_ms}
    compacts = {row.batch_size: row for row in after.latency_ms}
    sizes = sorted(originals.keys() | compacts.keys())
    if not sizes:
        return None
    with figure_style():
        figure = Figure(figsize=(FULL_WIDTH, 0.35 + 0.95 * len(sizes)), layout="constrained")
        panels: list[Axes] = list(figure.subplots(len(sizes), 1, squeeze=False)[:, 0])
        for axes, batch_size in zip(panels, sizes, strict=True):
            _latency_panel(axes, originals.get(batch_size), compacts.get(batch_size))
            axes.set_title(f"Batch size {batch_size}")
        panels[-1].set_xlabel(
            "milliseconds per forward pass: bar p50, ticks p90 and p99, an arrow where they lie "
            "outside"
        )
        return inline(
            figure,
            name="latency",
            label="Latency of the original and the compact model per batch size; "
            "the numbers are in the table below.",
        )


def _latency_panel(axes: Axes, original: Latency | None, compact: Latency | None) -> None:
    rows = [("original", original, BEFORE), ("compact", compact, AFTER)]
    present = [row for _, row, _ in rows if row is not None]
    # One stalled run on a busy machine must not press the medians against the axis.
    limit = min(
        max(row.p99 for row in present) * 1.04, max(row.p50 for row in present) * MAX_WHISKER
    )
    for position, (_, row, colour) in enumerate(rows):
        if row is None:
            continue
        axes.barh(position, row.p50, height=0.52, color=colour)
        axes.plot([row.p50, min(row.p99, limit)], [position] * 2, color=INK, linewidth=0.9)
        ticks = [value for value in (row.p90, row.p99) if value <= limit]
        axes.plot(ticks, [position] * len(ticks), "|", color=INK, markersize=6)
        if row.p99 > limit:
            axes.plot(limit, position, ">", color=INK, markersize=4, clip_on=False)
        axes.annotate(
            milliseconds(row.p50),
            (1, position),
            xycoords=axes.get_yaxis_transform(),
            xytext=(34, 0),
            textcoords="offset points",
            ha="right",
            va="center",
        )
    axes.set_yticks([0, 1], [name for name, _, _ in rows])
    axes.set_ylim(1.5, -0.5)
    axes.set_xlim(0, limit)
    axes.xaxis.set_major_locator(MaxNLocator(6))


def stages(report: Report) -> Markup | None:
    """The metric, and size as a share of the original, over the steps of the job."""
    if not report.stages:
        return None
    states: list[Measurement] = [report.before, *report.stages]
    labels = ["before", *(stage.label for stage in report.stages)]
    positions = list(range(len(states)))
    decides = report.objective.decides
    heights = [metric.height(decides, state.deciding, state.accuracy) for state in states]
    scored = [(x, y) for x, y in zip(positions, heights, strict=True) if y is not None]
    with figure_style():
        rows = 2 if scored else 1
        figure = Figure(figsize=(FULL_WIDTH, 0.9 + 1.45 * rows), layout="constrained")
        panels: list[Axes] = list(figure.subplots(rows, 1, squeeze=False, sharex=True)[:, 0])
        if scored:
            top = panels[0]
            top.plot(*zip(*scored, strict=True), color=AFTER, marker="o", markersize=4)
            top.set_title(f"{metric.title(decides)} on the validation split")
            if decides.fraction:
                top.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
            top.margins(y=0.25)
            top.grid(axis="y")
        bottom = panels[-1]
        for name, colour, dashes, values in (
            ("MACs", MUTED, (1, 1.5), [state.macs for state in states]),
            ("non-zero parameters", BEFORE, (4, 2), [s.nonzero_parameters for s in states]),
            ("file size", AFTER, (), [state.file_bytes for state in states]),
        ):
            if values[0] > 0:
                shares = [value / values[0] for value in values]
                (line,) = bottom.plot(
                    positions, shares, color=colour, label=name, marker="o", markersize=3
                )
                if dashes:
                    line.set_dashes(dashes)
        bottom.set_title("Share of the original")
        bottom.set_ylim(bottom=0)
        bottom.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        bottom.yaxis.set_major_locator(MultipleLocator(0.25))
        bottom.grid(axis="y")
        legend_above(bottom)
        _label_steps(bottom, labels)
        return inline(
            figure,
            name="stages",
            label=f"{metric.title(decides)} and size after every step; the numbers are in the "
            "table below.",
        )


def _label_steps(axes: Axes, labels: list[str]) -> None:
    """Names of the steps while they fit, numbers of the steps beyond that."""
    axes.set_xlim(-0.4, len(labels) - 0.6)
    if len(labels) <= MAX_LABELS:
        wrapped = [_wrap(label, 110 // len(labels)) for label in labels]
        axes.set_xticks(range(len(labels)), wrapped)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(MAX_LABELS, integer=True))
        axes.set_xlabel("step (0 is the original)")


def _wrap(label: str, width: int) -> str:
    lines = [""]
    for word in label.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > max(width, 8):
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(line if len(line) <= 24 else f"{line[:23]}…" for line in lines[:3])


def layers(rows: list[LayerReport]) -> Markup | None:
    """Share removed of every weight tensor, in the order of the model: the whole at a glance."""
    if not rows:
        return None
    with figure_style():
        figure = Figure(figsize=(FULL_WIDTH, 1.7), layout="constrained")
        axes = figure.subplots()
        edges = np.arange(len(rows) + 1) + 0.5
        axes.stairs([row.removed_fraction for row in rows], edges, fill=True, color=AFTER)
        axes.set_xlim(0.5, len(rows) + 0.5)
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
        axes.xaxis.set_major_locator(MaxNLocator(MAX_LABELS, integer=True))
        axes.set_xlabel("weight tensor, in the order of the table")
        axes.grid(axis="y")
        return inline(
            figure,
            name="layers",
            label="Share of weights removed per tensor; the numbers are in the table below.",
        )


def histogram(before: Histogram, after: Histogram) -> Markup | None:
    """Both weight distributions over the same axis, as counts."""
    if not any(before.counts) and not any(after.counts):
        return None
    with figure_style():
        figure = Figure(figsize=(FULL_WIDTH, 2.5), layout="constrained")
        axes = figure.subplots()
        axes.stairs(before.counts, before.edges, fill=True, color=BEFORE, alpha=0.35)
        axes.stairs(before.counts, before.edges, color=BEFORE, linewidth=1, label="original")
        axes.stairs(after.counts, after.edges, fill=True, color=AFTER, alpha=0.35)
        axes.stairs(after.counts, after.edges, color=AFTER, linewidth=1.4, label="compact")
        if _has_spike(before.counts) or _has_spike(after.counts):
            axes.set_yscale("log")
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.set_ylabel("weights (logarithmic)")
        else:
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_locator(MaxNLocator(4))
            axes.set_ylabel("weights")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        axes.set_xlabel("value of the weight")
        axes.grid(axis="y")
        legend_above(axes)
        return inline(
            figure,
            name="histogram",
            label="Histogram of all weights before and after: "
            f"{sum(before.counts)} weights before, {sum(after.counts)} after.",
        )


def _has_spike(counts: list[int]) -> bool:
    """One bin (the zeros of element pruning) would flatten all others on a linear axis."""
    ranked = sorted(counts, reverse=True)
    return len(ranked) > 4 and ranked[0] > 10 * max(ranked[2], 1)
