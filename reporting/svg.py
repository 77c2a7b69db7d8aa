"""Matplotlib figures as inline SVG that follows the page: its colours, its font, its dark mode.

Figures are drawn in placeholder colours, which become CSS variables here. Text stays text, so it
can be read aloud, searched and printed. The same figure always gives the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, MUTED, RULE = "#010101", "#020202", "#030303"
BEFORE, AFTER, PAPER = "#040404", "#050505", "#060606"
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    BEFORE: "var(--before)",
    AFTER: "var(--after)",
    PAPER: "var(--paper)",
}

FULL_WIDTH = 9.6
"""Inches of the text column, at which the SVG is shown at its natural size."""

_STYLE: dict[Any, Any] = {  # matplotlib types its keys as one long Literal
    "svg.fonttype": "none",
    "svg.hashsalt": "secateur",
    "text.parse_math": False,  # layer names may hold dollar signs
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


@contextmanager
def figure_style() -> Iterator[None]:
    """Draw inside this: the report's own matplotlib settings, whatever the user's are."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def legend_above(axes: Axes) -> None:
    """A one-line legend at the right above the plot, where it hides nothing."""
    axes.legend(
        loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0.2, handlelength=1.2
    )


def inline(figure: Figure, *, name: str, label: str) -> Markup:
    """The figure as an `<svg>` element.

    Args:
        figure: drawn within `figure_style`.
        name: unique on the page; keeps the ids of several figures apart.
        label: what the picture shows, for those who cannot see it.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    referenced = set(re.findall(r'(?:url\(|href=")#([^")]+)', text))
    text = re.sub(
        r' id="([^"]+)"',
        lambda match: f' id="{name}-{match[1]}"' if match[1] in referenced else "",
        text,
    )
    text = re.sub(r'(url\(|href=")#', rf"\1#{name}-", text)
    for placeholder, variable in _VARIABLES.items():
        text = text.replace(placeholder, variable)
    text = text.replace("'DejaVu Sans'", "var(--sans)")
    width, height = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)[0]
    opening = (
        f'<svg class="plot" role="img" viewBox="0 0 {width} {height}" '
        f'style="max-width:{float(width) / 72:.2f}in" '
        'xmlns:xlink="http://www.w3.org/1999/xlink" xmlns="http://www.w3.org/2000/svg" '
        f'aria-label="{escape(label)}">'
    )
    # Matplotlib escaped the text it drew; nothing else in here came from outside.
    return Markup(opening + text[text.index(">") + 1 :])  # noqa: S704
