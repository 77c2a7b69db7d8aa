"""The job's metric as a reader wants it: a share in per cent with its counts, or a number."""

from __future__ import annotations

from secateur.report import Accuracy, MetricReport

from reporting import formatting
from reporting.formatting import MISSING, percent


def shown(metric: MetricReport, value: float | None, accuracy: Accuracy | None) -> str:
    """`352 / 360 = 97.78 %` where right answers were counted, else `61.20 %` or `12.13`."""
    if metric.name == "accuracy":
        if accuracy is None:
            return MISSING
        return f"{accuracy.correct:,} / {accuracy.total:,} = {percent(accuracy.top1, 2)}"
    if value is None:
        return MISSING
    return percent(value, 2) if metric.fraction else number(value)


def column(metric: MetricReport) -> str:
    """Head of a column: `Accuracy, n / N (%)` where right answers are counted."""
    return "Accuracy, n / N (%)" if metric.name == "accuracy" else title(metric)


def better(metric: MetricReport, before: float, after: float, *, lost: float) -> bool | None:
    """Whether a change is a gain, a loss, or neither.

    Args:
        lost: a share that falls by no more than this is neither; for other metrics a change by no
            more than this share of what it was.
    """
    moved = after - before if metric.higher_is_better else before - after
    least = lost if metric.fraction else lost * abs(before)
    return True if moved > 0 else False if moved < -least else None


def number(value: float) -> str:
    """Four significant digits."""
    return f"{value:.4g}".replace("-", formatting.MINUS)


def height(metric: MetricReport, value: float | None, accuracy: Accuracy | None) -> float | None:
    """What a figure draws; None where nothing was measured."""
    if metric.name == "accuracy":
        return None if accuracy is None else accuracy.top1
    return value


def title(metric: MetricReport) -> str:
    """`Top-1 accuracy`, at the start of a line."""
    return metric.title[:1].upper() + metric.title[1:]


def difference(metric: MetricReport, before: float, after: float) -> str:
    """How a metric moved: in points where it is a share, else in per cent of what it was."""
    if metric.fraction:
        return formatting.points(after - before)
    return formatting.change(before, after)
