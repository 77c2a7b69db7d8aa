"""Settings and dependencies: the pages list exactly what the code has."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from persistence.settings import Settings

ROOT = Path(__file__).parents[2]
DEPLOYMENT = (ROOT / "docs/deployment.md").read_text(encoding="utf-8")
DEPENDENCIES = (ROOT / "docs/dependencies.md").read_text(encoding="utf-8")


def _rows(text: str) -> list[list[str]]:
    """Cells of the table rows that start with code."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| `")
    ]


def test_deployment_lists_every_setting_with_its_default() -> None:
    listed = {
        name.strip("`"): (default.strip("`"), text)
        for name, default, text in _rows(DEPLOYMENT.split("## Settings")[1])
    }
    expected = {
        f"SECATEUR_{name.upper()}": "none" if field.default is None else str(field.default)
        for name, field in Settings.model_fields.items()
    }
    assert {name: default for name, (default, _) in listed.items()} == expected
    assert all(len(text) > 10 for _, text in listed.values())


def test_processes_of_the_deployment_page_are_those_of_the_compose_file() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    started = {" ".join(service.get("command", [])) for service in services.values()}
    table = DEPLOYMENT.split("## Processes")[1].split("\n## ")[0]
    commands = re.findall(r"^\|[^|]+\| `([^`]+)` \|", table, flags=re.MULTILINE)
    assert len(commands) == 5
    for command in commands:
        assert any(command in whole for whole in started), command


def _names(requirements: list[str]) -> list[str]:
    return [re.split(r"[\[<>=!~ ]", requirement)[0] for requirement in requirements]


def _project(path: str) -> dict[str, Any]:
    with (ROOT / path).open("rb") as file:
        project: dict[str, Any] = tomllib.load(file)["project"]
    return project


SERVER = _project("pyproject.toml")


@pytest.mark.parametrize(
    ("heading", "requirements"),
    [
        ("## Client", _project("client/pyproject.toml")["dependencies"]),
        ("## Server", SERVER["dependencies"]),
        ("## Exports", SERVER["optional-dependencies"]["exports"]),
        ("## Development", SERVER["optional-dependencies"]["dev"]),
        ("## Benchmarks", SERVER["optional-dependencies"]["bench"]),
        ("## Zoo", SERVER["optional-dependencies"]["zoo"]),
    ],
)
def test_dependencies_page_explains_each_in_the_order_of_the_project_file(
    heading: str, requirements: list[str]
) -> None:
    section = DEPENDENCIES.split(heading)[1].split("\n## ")[0]
    rows = _rows(section)
    assert [name.strip("`") for name, _ in rows] == _names(requirements)
    assert all(len(purpose) > 5 for _, purpose in rows)
