"""Weight distributions as pictures: all weights together, and the largest layers one by one."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator
from secateur.report import DistributionState, LayerHistogram, WeightDistribution

from reporting.formatting import integer, percent, short
from reporting.svg import AFTER, BEFORE, FULL_WIDTH, INK, figure_style, inline, legend_above

_NAMES = {"original": "original", "pruned": "after pruning", "retrained": "after retraining"}
_COLOURS = {"original": BEFORE, "pruned": INK, "retrained": AFTER}
_COLUMNS = 4
_DWARFED = 10
_LONGEST = 26
"""Letters of a layer's name over its panel; the end of a name tells layers apart."""


@dataclass(frozen=True)
class WeightRow:
    """What the bars leave out, for one state."""

    state: str
    label: str
    weights: str
    zeros: str
    share: str
    not_finite: str


def weight_rows(distribution: WeightDistribution) -> list[WeightRow]:
    """A line for each state."""
    rows = []
    for state in distribution.states:
        total = state.total
        count = _elements(total)
        rows.append(
            WeightRow(
                _NAMES[state.state],
                "" if state.label == state.state else state.label,
                integer(count),
                integer(total.zeros),
                percent(total.zeros / count if count else 0.0),
                integer(total.not_finite) if total.not_finite else "",
            )
        )
    return rows


def _elements(histogram: LayerHistogram) -> int:
    return sum(histogram.counts) + histogram.zeros + histogram.not_finite


def total_plot(distribution: WeightDistribution) -> Markup | None:
    """Every state over the same bins, zeros left out."""
    states = [state for state in distribution.states if any(state.total.counts)]
    if not states:
        return None
    with figure_style():
        figure = Figure(figsize=(FULL_WIDTH, 2.5), layout="constrained")
        axes = figure.subplots()
        for state in states:
            _stairs(axes, distribution, state, state.total)
        if _dwarfs(distribution):
            _logarithmic(axes)
            axes.set_ylabel("weights that are not zero\n(logarithmic)")
        else:
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_locator(MaxNLocator(4))
            axes.set_ylabel("weights that are not zero")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        axes.set_xlabel("value of the weight")
        axes.grid(axis="y")
        legend_above(axes)
        said = ", ".join(f"{_NAMES[s.state]} {sum(s.total.counts)}" for s in states)
        return inline(
            figure,
            name="histogram",
            label=f"Histogram of all weights that are not zero: {said}.",
        )


def layers_plot(distribution: WeightDistribution) -> Markup | None:
    """A small panel for each of the largest layers, each with its own height."""
    layers = [layer.name for layer in distribution.states[0].layers] if distribution.states else []
    if len(layers) < 2:
        return None
    rows = -(-len(layers) // _COLUMNS)
    with figure_style():
        figure = Figure(figsize=(FULL_WIDTH, 0.3 + 1.15 * rows), layout="constrained")
        panels: list[Axes] = list(figure.subplots(rows, _COLUMNS, squeeze=False, sharex=True).flat)
        for axes, name in zip(panels, layers, strict=False):
            for state in distribution.states:
                for layer in state.layers:
                    if layer.name == name:
                        _stairs(axes, distribution, state, layer)
            axes.set_title(name if len(name) <= _LONGEST else f"…{name[1 - _LONGEST :]}")
            if _dwarfs(distribution):
                _logarithmic(axes)
            else:
                axes.set_ylim(bottom=0)
            axes.yaxis.set_major_locator(NullLocator())
            axes.xaxis.set_major_locator(MaxNLocator(3, symmetric=True))
        for axes in panels[len(layers) :]:
            axes.set_visible(False)
        for axes in panels[max(len(layers) - _COLUMNS, 0) : len(layers)]:
            axes.tick_params(labelbottom=True)  # also above a place without a panel
        return inline(
            figure,
            name="layer-histograms",
            label=f"Histograms of the weights of {len(layers)} layers in every state, each layer "
            "with a height of its own; the counts are in the report's JSON.",
        )


def _dwarfs(distribution: WeightDistribution) -> bool:
    """Whether one state's bars would leave another's too low to be seen."""
    heights = [max(state.total.counts) for state in distribution.states if any(state.total.counts)]
    return max(heights, default=0) > _DWARFED * min(heights, default=0)


def _logarithmic(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.8)  # so that a single weight has a height
    axes.yaxis.set_minor_locator(NullLocator())


def _stairs(
    axes: Axes, distribution: WeightDistribution, state: DistributionState, layer: LayerHistogram
) -> None:
    colour = _COLOURS[state.state]
    dashes = (0, (3, 1.5)) if state.state == "pruned" else "-"
    if state.state != "pruned":
        axes.stairs(layer.counts, distribution.edges, fill=True, color=colour, alpha=0.3)
    axes.stairs(
        layer.counts, distribution.edges, color=colour, linewidth=1.1, linestyle=dashes,
        label=_NAMES[state.state],
    )  # fmt: skip
