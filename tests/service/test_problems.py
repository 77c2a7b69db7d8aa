"""Every error is a problem document, whatever raised it."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from secateur.resources import Problem

from service import logs, request_guard
from service.problems import ProblemError
from tests.service.conftest import Api


def problem_of(response: Any, status: int) -> Problem:
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = Problem.model_validate(response.json())
    assert problem.status == status
    assert problem.title
    assert problem.type.startswith("/problems/")
    assert response.headers["X-Request-ID"]
    return problem


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (None, "no API key"),
        ("Bearer sk_wrong", "unknown or revoked"),
        ("Basic dTpw", "no API key"),
        ("Bearer", "no API key"),
        ("Bearer ", "no API key|unknown"),
        ("Bearer ünïcode", "unknown"),
    ],
)
def test_no_entry_without_a_key(api: Api, header: str | None, words: str) -> None:
    headers = {} if header is None else {"Authorization": header.encode()}
    response = api.anonymous.get("/v1/models", headers=headers)
    problem = problem_of(response, 401)
    assert problem.type == "/problems/unauthorized"
    assert any(word in problem.detail for word in words.split("|"))
    assert "Authorization: Bearer" in problem.hint
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


def test_every_v1_path_wants_a_key(api: Api) -> None:
    paths = api.app.openapi()["paths"]
    guarded = [path for path in paths if path.startswith("/v1/")]
    assert len(guarded) > 15
    for path in guarded:
        for method in paths[path]:
            response = api.anonymous.request(method, path.replace("{", "").replace("}", ""))
            assert response.status_code == 401, (method, path)


def test_an_unknown_path(api: Api) -> None:
    problem = problem_of(api.client.get("/v1/modles"), 404)
    assert problem.type == "/problems/route-not-found"
    assert "/v1/modles" in problem.detail
    assert problem.instance == "/v1/modles"


def test_a_wrong_method(api: Api) -> None:
    for path, allowed in (
        ("/v1/models", "GET, HEAD, POST"),
        ("/v1/models/mdl_x", "DELETE, GET, HEAD"),
        ("/v1/jobs/job_x/cancel", "POST"),
        ("/openapi.json", "GET, HEAD"),
    ):
        response = api.client.put(path)
        problem = problem_of(response, 405)
        assert problem.type == "/problems/method-not-allowed"
        assert response.headers["Allow"] == allowed
        assert allowed in problem.hint
    assert api.client.head("/v1/jobs/job_x/cancel").status_code == 405


def test_every_get_answers_a_head(api: Api) -> None:
    """With the same status and headers, but no body."""
    paths = [path for path, methods in api.app.openapi()["paths"].items() if "get" in methods]
    assert len(paths) > 15
    for path in paths:
        url = path.replace("{", "").replace("}", "")
        got, headed = api.client.get(url), api.client.head(url)
        assert headed.content == b""
        assert headed.status_code == got.status_code, path
        assert headed.headers.keys() == got.headers.keys(), path
        # problems differ by the request id alone
        assert headed.headers["Content-Length"] == got.headers["Content-Length"]


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/models?limit=0", "limit"),
        ("/v1/models?limit=201", "limit"),
        ("/v1/models?limit=ten", "limit"),
        ("/v1/models?cursor=%27", "cursor"),
        ("/v1/models?cursor=job_06av9c3a7b8c9d0e1f2g3h4j5k", "cursor"),
        ("/v1/jobs?cursor=mdl_06av9c2k3h7n8q4r5s6t7v8w9x", "cursor"),
        ("/v1/jobs/job_x/events?cursor=job_x", "cursor"),
        ("/v1/models?status=gone", "status"),
        ("/v1/jobs?status=gone", "status.0"),
        ("/v1/jobs?type=prune", "type"),
        ("/v1/jobs/job_x?wait=-1", "wait"),
        ("/v1/jobs/job_x/events?after=-1", "after"),
        ("/v1/jobs/job_x/metrics?limit=1001", "limit"),
    ],
)
def test_wrong_query_parameters_are_named(api: Api, path: str, field: str) -> None:
    problem = problem_of(api.client.get(path), 422)
    assert problem.type == "/problems/request-invalid"
    assert [error.field for error in problem.errors] == [field]


def test_a_wrong_header_is_named(api: Api) -> None:
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "last"}
    problem = problem_of(api.client.get("/v1/jobs/job_x/events", headers=headers), 422)
    assert [error.field for error in problem.errors] == ["last-event-id"]


def test_a_huge_json_body_is_not_read(api: Api) -> None:
    def endless() -> Any:
        sent = 0
        while sent < 3 * request_guard.MAX_BODY_BYTES:
            sent += 2**16
            yield b" " * 2**16

    response = api.client.post("/v1/jobs", content=endless())
    assert problem_of(response, 413).type == "/problems/body-too-large"


def test_the_unexpected_is_logged_whole_and_answered_without_internals(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def explode(*_: Any, **__: Any) -> None:
        raise RuntimeError("the password is hunter2")

    monkeypatch.setattr("service.models.service.get", explode)
    with caplog.at_level(logging.INFO):
        response = api.client.get("/v1/models/mdl_x", headers={"X-Request-ID": "given-by-client"})
    problem = problem_of(response, 500)
    assert response.headers["X-Request-ID"] == "given-by-client"
    assert "given-by-client" in problem.hint
    assert "hunter2" not in response.text
    failures = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(failures) == 1
    assert failures[0].msg["request_id"] == "given-by-client"  # type: ignore[index]
    assert failures[0].exc_info or "hunter2" in str(failures[0].msg)


def test_log_lines_are_json_and_hold_no_secret(
    api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = api.client.headers["Authorization"].removeprefix("Bearer ")
    logs.configure()  # now to the stream that is being captured
    api.client.get("/v1/models?cursor=mdl_0secret", headers={"X-Request-ID": "bad id\x7f" * 9})
    written = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    lines = [one for one in written if one["logger"] != "httpx"]  # the test's own client
    [line] = [one for one in lines if one["event"] == "request"]
    assert (line["method"], line["path"], line["status"]) == ("GET", "/v1/models", 200)
    assert line["key_id"].startswith("key_")
    assert len(line["request_id"]) == 16  # the client's was not fit to be logged
    assert secret not in str(lines)
    assert "0secret" not in str(lines)


def test_problem_types_are_distinct_and_named_once() -> None:
    def everything(base: type[ProblemError]) -> list[type[ProblemError]]:
        return [base, *(one for sub in base.__subclasses__() for one in everything(sub))]

    kinds = [(one.type, one.__name__) for one in everything(ProblemError) if "type" in vars(one)]
    names = [kind for kind, _ in kinds]
    assert len(names) == len(set(names)), sorted(kinds)
