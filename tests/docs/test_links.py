"""Links, anchors, paths and shell snippets of every page hold."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from docs import generate_decisions

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("bench/*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
IMAGE = re.compile(r"<img[^>]+src=\"([^\"]+)\"")


def _text(page: Path) -> str:
    """The page without its code blocks."""
    return re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def _anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _text(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in [*LINK.findall(_text(page)), *IMAGE.findall(_text(page))]:
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name}: {target} does not exist"
        if anchor:
            assert anchor in _anchors(linked), f"{page.name}: no heading for {target}"


def test_every_page_can_be_reached_from_the_index() -> None:
    index = ROOT / "docs/README.md"
    linked = {(index.parent / target).resolve() for target in LINK.findall(_text(index))}
    assert {page for page in PAGES if page.parent == index.parent} - {index} <= linked


def test_index_of_decisions_is_what_the_generator_writes() -> None:
    written = generate_decisions.INDEX.read_text(encoding="utf-8")
    assert written == generate_decisions.index(), "run `python -m docs.generate_decisions`"


def test_decision_numbers_are_unique() -> None:
    numbers = [page.name[:4] for page in generate_decisions.FOLDER.glob("[0-9]*.md")]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_shell_snippets_parse(page: Path) -> None:
    shell = shutil.which("bash")
    assert shell is not None
    for snippet in re.findall(r"```(?:sh|bash)\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
        checked = subprocess.run(
            [shell, "-n"], input=snippet, text=True, capture_output=True, check=False
        )
        assert checked.returncode == 0, f"{page.name}: {checked.stderr}\n{snippet}"


def test_api_page_names_only_paths_the_api_has() -> None:
    paths = yaml.safe_load((ROOT / "openapi.yaml").read_text(encoding="utf-8"))["paths"]
    known = {re.sub(r"\{\w+\}", "*", path) for path in paths}
    page = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    named = {re.sub(r"\$\w+|\{\w+\}", "*", path) for path in re.findall(r"/v1/[\w/${}-]+", page)}
    assert len(named) >= 8
    assert named <= known
