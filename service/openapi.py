"""The API description: written to `openapi.yaml`, and compared with it.

`python -m service.openapi --write` renews the file, `--check` fails when it is out of date.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from secateur.report import Report
from secateur.report_score import ScoreReport
from secateur.report_search import SearchReport
from secateur.resources import Problem

from service import examples
from service.access import scopes
from service.conditional import describe_tags
from service.problems import MEDIA_TYPE

FILE = Path(__file__).parent.parent / "openapi.yaml"

_ABOUT = """\
Upload a TorchScript model and a recipe, poll the job, download a smaller model that behaves the
same and the report that proves it.

Ids are prefixed and sort by creation. Times are RFC 3339 in UTC. Lists come as
`{data, next_cursor, has_more}`. JSON carries an `ETag` and is not sent again where
`If-None-Match` has it. Errors are RFC 9457 problem documents with a `hint`. Every response carries
an `X-Request-ID`.
"""


def describe(app: FastAPI) -> None:
    """Make the application serve this description."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = description_of(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # the framework's documented way


def description_of(app: FastAPI) -> dict[str, Any]:
    """OpenAPI 3.1 of the application."""
    schema = get_openapi(
        title="Secateur",
        version=version("secateur-server"),
        summary="Make compiled PyTorch models physically smaller, with a certificate.",
        description=_ABOUT,
        routes=app.routes,
    )
    _, definitions = models_json_schema(
        [
            (Problem, "serialization"),
            (Report, "serialization"),
            (ScoreReport, "serialization"),
            (SearchReport, "serialization"),
        ],
        ref_template="#/components/schemas/{model}",
    )
    schemas = schema["components"]["schemas"]
    for name, definition in definitions["$defs"].items():
        schemas.setdefault(name, definition)
    _drop_framework_errors(schema)
    describe_tags(schema["paths"])
    scopes.describe(schema)
    schema["components"]["schemas"] = dict(sorted(schemas.items()))
    completed: dict[str, Any] = examples.with_nulls(schema)
    return completed


def _drop_framework_errors(schema: dict[str, Any]) -> None:
    """Operations that can answer 422 say so with a problem; the framework's own form of it,
    which it adds to whatever has a parameter, never leaves this application."""
    for methods in schema["paths"].values():
        for operation in methods.values():
            content = operation["responses"].get("422", {}).get("content", {})
            if content and MEDIA_TYPE not in content:
                del operation["responses"]["422"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(unused, None)


def text() -> str:
    """The content of `openapi.yaml` as the code has it."""
    from persistence.settings import Settings  # noqa: PLC0415 - the app imports this module
    from service.app import create_app  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        app = create_app(Settings(data_dir=Path(folder)))
        description = description_of(app)
    return yaml.dump(description, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


class _Dumper(yaml.SafeDumper):
    """Paragraphs as blocks and no anchors, for people to read."""

    def ignore_aliases(self, _data: Any) -> bool:
        """Write everything out."""
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def main(arguments: list[str] | None = None) -> int:
    """Write or check the file."""
    parser = argparse.ArgumentParser(prog="python -m service.openapi", description=__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", action="store_true", help="renew openapi.yaml")
    action.add_argument("--check", action="store_true", help="fail when openapi.yaml is old")
    if parser.parse_args(arguments).write:
        FILE.write_text(text())
        return 0
    if FILE.read_text() == text():
        return 0
    sys.stderr.write("openapi.yaml is out of date: run `python -m service.openapi --write`.\n")
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
