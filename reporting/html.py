"""A report as one self-contained HTML file: no scripts, nothing fetched, readable on paper.

Everything in a report may come from an upload (layer names, error texts, the recipe), so the
template escapes all of it, and a content security policy forbids scripts and fetches even if it
did not.
"""

from __future__ import annotations

from functools import lru_cache

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from secateur.report import Report

from reporting import formatting, plots, tables
from reporting.controls import control_rows
from reporting.curve import LEAST_POINTS, curve_plot, curve_rows, missing_points
from reporting.export_table import export_rows
from reporting.metric import column, title
from reporting.quantization_table import quantization_words, quantized_rows
from reporting.stage_table import stage_rows
from reporting.target_table import target_rows
from reporting.tournament_table import contestant_rows, tournament_words
from reporting.tradeoff import tradeoff_plot, tradeoff_rows
from reporting.training import drawn, memory_words, point_rows, run_rows, training_plot
from reporting.weight_plots import layers_plot, total_plot, weight_rows

MAX_OPEN_ROWS = 24
"""Tables longer than this start folded."""


def render(report: Report) -> str:
    """The report as an HTML document."""
    weights, metric = report.weights, report.objective.decides
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            tiles=tables.tiles(report),
            metric=metric,
            metric_column=column(metric),
            metric_title=title(metric),
            rows=tables.comparison(report.before, report.after, report.objective),
            latencies=tables.latencies(report.before, report.after),
            frozen=tables.frozen(report.frozen),
            layers=[tables.layer(row) for row in report.layers],
            stage_rows=stage_rows(report),
            has_masked=any(stage.masked is not None for stage in report.stages),
            tournaments=[
                (tournament_words(one), contestant_rows(one, metric)) for one in report.tournaments
            ],
            target_rows=target_rows(report.targets),
            export_rows=export_rows(report.exports),
            quantizations=[
                (quantization_words(one), quantized_rows(one), one.warnings)
                for one in report.quantization
            ],
            curve_rows=curve_rows(report.curve, metric),
            curve_missing=missing_points(report.curve, metric),
            tradeoff_rows=[] if report.tradeoff is None else tradeoff_rows(report.tradeoff, metric),
            run_rows=run_rows(report.training, metric),
            memory_words=memory_words(report.training),
            training_points=[(run.label, point_rows(run)) for run in drawn(report.training)],
            control_rows=control_rows(report),
            least_curve=LEAST_POINTS,
            weight_rows=[] if weights is None else weight_rows(weights),
            any_not_finite=weights is not None and any(s.total.not_finite for s in weights.states),
            max_open_rows=MAX_OPEN_ROWS,
            plots={
                "latency": plots.latency(report.before, report.after),
                "stages": plots.stages(report),
                "layers": plots.layers(report.layers),
                "curve": curve_plot(report.before, report.curve, metric),
                "tradeoff": None
                if report.tradeoff is None
                else tradeoff_plot(report.tradeoff, metric),
                "training": training_plot(report.training),
                # Older reports have one histogram before and one after.
                "histogram": plots.histogram(report.histogram_before, report.histogram_after)
                if weights is None
                else total_plot(weights),
                "layer_histograms": None if weights is None else layers_plot(weights),
            },
            recipe=yaml.safe_dump(
                report.provenance.recipe,
                sort_keys=False,
                allow_unicode=True,
                width=88,
                default_flow_style=None,  # short lists and objects on one line
            ),
        )
    )


@lru_cache(maxsize=1)
def environment() -> Environment:
    """The templates, with the filters that they use."""
    environment = Environment(
        loader=PackageLoader("reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "elapsed": formatting.elapsed,
        "integer": formatting.integer,
        "loss": formatting.loss,
        "percent": formatting.percent,
        "ratio": formatting.ratio,
        "scientific": formatting.scientific,
        "short": formatting.short,
        "size": formatting.size,
    }
    environment.globals["MISSING"] = formatting.MISSING
    return environment
