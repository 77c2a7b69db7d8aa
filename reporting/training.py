"""Training in the report: loss and learning rate over the steps of each run, and its epochs."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from secateur.report import MetricReport
from secateur.report_base import CLASSIFICATION
from secateur.report_training import TrainingCurves

from reporting.formatting import MISSING, integer, loss, percent, size
from reporting.svg import (
    AFTER,
    BEFORE,
    FULL_WIDTH,
    MUTED,
    figure_style,
    inline,
    legend_above,
)

MOST_DRAWN = 4
"""Runs with a plot and a table of points: the last ones; the report's JSON has all."""


@dataclass(frozen=True)
class RunRow:
    """One run in the table of all of them."""

    name: str
    steps: str
    epochs: str
    loss: str
    validation: str
    metric: str
    speed: str
    memory: str


@dataclass(frozen=True)
class PointRow:
    """One point in the table beside the plot."""

    step: str
    loss: str
    lr: str
    gradient_norm: str
    speed: str
    memory: str


def run_rows(
    runs: list[TrainingCurves], metric: MetricReport = CLASSIFICATION.decides
) -> list[RunRow]:
    """What each run ended with, by loss and by the metric that decides."""
    return [_run_row(run, metric) for run in runs]


def _run_row(run: TrainingCurves, metric: MetricReport) -> RunRow:
    last = run.epochs[-1].values if run.epochs else {}
    value = last.get(f"validation/{metric.name}")
    pace = run.pace
    return RunRow(
        name=run.label,
        steps=integer(run.points[-1].step if run.points else 0),
        epochs=integer(len(run.epochs)),
        loss=loss(last.get("train/loss")),
        validation=loss(last.get("validation/loss")),
        metric=MISSING if value is None else percent(value, 2) if metric.fraction else loss(value),
        speed=f"{median(pace.samples_per_second):,.0f}" if pace.samples_per_second else MISSING,
        memory=size(max(pace.memory_bytes)) if pace.memory_bytes else MISSING,
    )


def drawn(runs: list[TrainingCurves]) -> list[TrainingCurves]:
    """The runs that are drawn: the last of those that have a line to draw."""
    return [run for run in runs if len(run.points) > 1][-MOST_DRAWN:]


def point_rows(run: TrainingCurves) -> list[PointRow]:
    """The numbers of a plot."""
    rates = dict(zip(run.pace.steps, run.pace.samples_per_second, strict=False))
    memory = dict(zip(run.pace.steps, run.pace.memory_bytes, strict=False))
    return [
        PointRow(
            step=integer(point.step),
            loss=loss(point.loss),
            lr=f"{point.lr:.3g}",
            gradient_norm=MISSING if point.gradient_norm is None else f"{point.gradient_norm:.3g}",
            speed=f"{rates[point.step]:,.0f}" if point.step in rates else MISSING,
            memory=size(memory[point.step]) if point.step in memory else MISSING,
        )
        for point in run.points
    ]


def training_plot(runs: list[TrainingCurves]) -> Markup | None:
    """A row for each run: the loss at the left, the learning rate at the right."""
    shown = drawn(runs)
    if not shown:
        return None
    with figure_style():
        figure = Figure(figsize=(FULL_WIDTH, 0.3 + 2.1 * len(shown)), layout="constrained")
        panels = figure.subplots(len(shown), 2, squeeze=False, width_ratios=(2, 1))
        for (left, right), run in zip(panels, shown, strict=True):
            _loss_panel(left, run)
            _rate_panel(right, run)
        for axes in panels[-1]:
            axes.set_xlabel("optimiser steps")
        return inline(
            figure,
            name="training",
            label="Training and validation loss, and the learning rate, over the optimiser steps "
            "of each training run; the numbers are in the tables below.",
        )


def _loss_panel(axes: Axes, run: TrainingCurves) -> None:
    axes.set_title(f"{_fitting(run.label)}: loss")
    steps = [point.step for point in run.points]
    axes.plot(steps, [point.loss for point in run.points], color=AFTER, label="train")
    per_epoch = _per_epoch(run)
    held = [
        (epoch.epoch * per_epoch, epoch.values["validation/loss"])
        for epoch in run.epochs
        if "validation/loss" in epoch.values
    ]
    if held:
        axes.plot(
            *zip(*held, strict=True),
            color=BEFORE,
            label="validation, by epoch",
            marker="o",
            markersize=3,
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.grid(axis="y")
    legend_above(axes)


def _rate_panel(axes: Axes, run: TrainingCurves) -> None:
    axes.set_title("learning rate")
    axes.plot([point.step for point in run.points], [point.lr for point in run.points], color=MUTED)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(axis="y")


def _per_epoch(run: TrainingCurves) -> float:
    """Steps of an epoch: an end before the last epoch leaves both numbers short."""
    if not run.epochs or not run.points:
        return 0.0
    return run.points[-1].step / run.epochs[-1].epoch


def _fitting(label: str) -> str:
    """A label that fits above a panel."""
    return label if len(label) <= 40 else f"{label[:39]}…"


def memory_words(runs: list[TrainingCurves]) -> str:
    """What the memory column counts."""
    on_gpu = any(run.pace.memory == "cuda_peak_allocated" for run in runs)
    return "Most memory of tensors on the GPU" if on_gpu else "Resident memory of the process"
