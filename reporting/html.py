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

MAX_OPEN_ROWS = 24
"""Tables longer than this start folded."""


def render(report: Report) -> str:
    """The report as an HTML document."""
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            tiles=tables.tiles(report),
            rows=tables.comparison(report.before, report.after),
            latencies=tables.latencies(report.before, report.after),
            frozen=tables.frozen(report.frozen),
            layers=[tables.layer(row) for row in report.layers],
            max_open_rows=MAX_OPEN_ROWS,
            plots={
                "latency": plots.latency(report.before, report.after),
                "stages": plots.stages(report),
                "layers": plots.layers(report.layers),
                "histogram": plots.histogram(report.histogram_before, report.histogram_after),
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
def _environment() -> Environment:
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
        "scientific": formatting.scientific,
        "short": formatting.short,
        "size": formatting.size,
    }
    environment.globals["MISSING"] = formatting.MISSING
    return environment
