"""Writes the index of the decision pages, `docs/decisions/README.md`.

Run it after adding a page: `python -m docs.generate_decisions`.
"""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).with_name("decisions")
INDEX = FOLDER / "README.md"
INTRODUCTION = """\
# Decisions

A decision that would surprise a reader gets a page: what was decided, why, and its price. Pages are
numbered and stay; one that no longer holds says so and names its successor.

"""


def index() -> str:
    """The index as Markdown, from the titles of the pages."""
    lines = []
    for page in sorted(FOLDER.glob("[0-9]*.md")):
        title = page.read_text(encoding="utf-8").splitlines()[0]
        found = re.fullmatch(r"# (\d{4}): (.+)", title)
        if found is None or not page.name.startswith(f"{found[1]}-"):
            raise ValueError(f"{page.name}: the first line must read `# {page.name[:4]}: title`")
        lines.append(f"- [{found[1]}]({page.name}): {found[2]}")
    return INTRODUCTION + "\n".join(lines) + "\n"


if __name__ == "__main__":
    INDEX.write_text(index(), encoding="utf-8")
