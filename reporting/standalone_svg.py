"""An inline SVG as a file of its own, with the colours that a page gives to those inside it."""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.resources import files

from markupsafe import Markup

_LIGHT = re.compile(r"^:root \{.*?^\}", re.DOTALL | re.MULTILINE)
_DARK = re.compile(
    r"^@media screen and \(prefers-color-scheme: dark\) \{.*?^\}", re.DOTALL | re.MULTILINE
)
_OPENING = re.compile(r"<svg [^>]*>")


def standalone(figure: Markup) -> str:
    """The figure as an SVG document; it follows the viewer's dark mode as the page does."""
    styled = _OPENING.sub(lambda found: found[0] + _style(), str(figure), count=1)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{styled}\n'


@lru_cache(maxsize=1)
def _style() -> str:
    sheet = (files("reporting") / "templates" / "style.css.j2").read_text(encoding="utf-8")
    blocks = [found[0] for pattern in (_LIGHT, _DARK) if (found := pattern.search(sheet))]
    if len(blocks) != 2:
        raise ValueError("the style sheet names its colours otherwise than expected")
    return f"<style>{''.join(blocks)} svg {{ background: var(--paper); }}</style>"
