"""The description is the code's, complete, and its examples are true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from secateur.report import Report
from secateur.report_search import SearchReport
from secateur.resources import (
    ApiKey,
    Artifact,
    Dataset,
    Event,
    Job,
    JobCreate,
    Limits,
    Metric,
    Model,
    Upload,
    UploadComplete,
    UploadCreate,
    UploadPart,
)

from service import examples, openapi
from service.example_report import REPORT
from service.example_search import SEARCH_CREATE, SEARCH_REPORT


@pytest.fixture(scope="module")
def description() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(openapi.FILE.read_text())
    return found


def operations(description: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method.upper()} {path}", operation)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    ]


@pytest.fixture(scope="module")
def current() -> str:
    """The description as the code has it now; made once, it takes a second."""
    return openapi.text()


def test_the_file_is_up_to_date(current: str) -> None:
    assert openapi.FILE.read_text() == current, "run `python -m service.openapi --write`"


def test_drift_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, current: str) -> None:
    monkeypatch.setattr(openapi, "text", lambda: current)
    old = tmp_path / "openapi.yaml"
    old.write_text(openapi.FILE.read_text().replace("Upload", "Downlaod", 1))
    monkeypatch.setattr(openapi, "FILE", old)
    assert openapi.main(["--check"]) == 1
    assert openapi.main(["--write"]) == 0
    assert openapi.main(["--check"]) == 0


def test_it_is_3_1_and_every_reference_leads_somewhere(description: dict[str, Any]) -> None:
    assert description["openapi"].startswith("3.1")

    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [ref for value in node.values() for ref in references(value)]
        if isinstance(node, list):
            return [ref for value in node for ref in references(value)]
        return []

    found = set(references(description))
    assert len(found) > 20
    for reference in found:
        here: Any = description
        for part in reference.removeprefix("#/").split("/"):
            assert part in here, reference
            here = here[part]


def test_every_operation_is_described(description: dict[str, Any]) -> None:
    found = operations(description)
    ids = [operation["operationId"] for _, operation in found]
    assert len(ids) == len(set(ids)) > 20
    for name, operation in found:
        assert operation["description"], name
        assert operation["tags"], name
        guarded = "/v1/" in name
        assert ("security" in operation) == guarded, name
        assert ("401" in operation["responses"]) == guarded, name


def test_every_error_is_a_problem_with_an_example(description: dict[str, Any]) -> None:
    for name, operation in operations(description):
        for status, response in operation["responses"].items():
            if status >= "400":
                content = response["content"]
                assert list(content) == ["application/problem+json"], (name, status)
                problem = content["application/problem+json"]
                assert problem["schema"] == {"$ref": "#/components/schemas/Problem"}
                assert problem["example"]["status"] == int(status)
    assert "HTTPValidationError" not in description["components"]["schemas"]


def misses(schema: dict[str, Any], value: Any, whole: dict[str, Any], at: str) -> list[str]:
    """Where a value lacks what its schema requires, or has what the schema does not know."""
    while "$ref" in schema:
        schema = whole["components"]["schemas"][schema["$ref"].rsplit("/", 1)[-1]]
    if "anyOf" in schema or "oneOf" in schema:
        choices = schema.get("anyOf", []) + schema.get("oneOf", [])
        return min((misses(one, value, whole, at) for one in choices), key=len)
    known = {"null": type(None), "object": dict, "array": list, "string": str, "boolean": bool}
    if schema.get("type") in known and not isinstance(value, known[schema["type"]]):
        return [f"{at} is no {schema['type']}"]
    if isinstance(value, list):
        items = schema.get("items", {})
        return [miss for one in value for miss in misses(items, one, whole, f"{at}[]")]
    if not isinstance(value, dict) or "properties" not in schema:
        return []
    found = [f"{at}.{name} is missing" for name in schema.get("required", []) if name not in value]
    for name, inner in value.items():
        if name not in schema["properties"]:
            found.append(f"{at}.{name} is unknown")
        else:
            found += misses(schema["properties"][name], inner, whole, f"{at}.{name}")
    return found


def test_every_json_body_has_an_example_that_fits_its_schema(description: dict[str, Any]) -> None:
    assert misses({"$ref": "#/components/schemas/Job"}, {"id": None}, description, "job")
    checked = 0
    for name, operation in operations(description):
        bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
        for kind, content in (item for one in bodies for item in one.get("content", {}).items()):
            if not kind.endswith("json"):
                continue
            shown = [content["example"]] if "example" in content else []
            shown += [one["value"] for one in content.get("examples", {}).values()]
            assert shown or "requestBody" in operation, (name, kind)
            for example in shown:
                assert misses(content["schema"], example, description, name) == []
                checked += 1
    assert checked > 100


def test_uploads_and_jobs_have_request_bodies(description: dict[str, Any]) -> None:
    paths = description["paths"]
    for path in ("/v1/models", "/v1/datasets"):
        content = paths[path]["post"]["requestBody"]["content"]
        assert set(content) == {"application/octet-stream", "multipart/form-data"}
    job = paths["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]
    assert job["examples"]["compress"]["value"] == examples.JOB_CREATE


@pytest.mark.parametrize(
    ("kind", "example"),
    [
        (Model, examples.MODEL),
        (Model, examples.MODEL_UPLOADED),
        (Dataset, examples.DATASET),
        (UploadCreate, examples.UPLOAD_CREATE),
        (Upload, examples.UPLOAD),
        (UploadPart, examples.UPLOAD_PART),
        (UploadComplete, examples.UPLOAD_COMPLETE),
        (JobCreate, examples.JOB_CREATE),
        (Job, examples.JOB_QUEUED),
        (Job, examples.JOB),
        (Artifact, examples.ARTIFACT),
        (Event, examples.EVENT),
        (Metric, examples.METRIC),
        (ApiKey, examples.API_KEY),
        (Limits, examples.LIMITS),
        (Report, REPORT),
        (SearchReport, SEARCH_REPORT),
        (JobCreate, SEARCH_CREATE),
    ],
)
def test_examples_fit_their_types(kind: Any, example: dict[str, Any]) -> None:
    parsed = kind.model_validate(example)
    assert set(example) <= set(parsed.model_dump())
