"""What every request is held to, and what every answer carries."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

import migrations
from persistence.settings import Settings
from service.logs import blot
from tests.service.conftest import Api, serve
from tests.service.live_server import live_server


def test_every_answer_is_only_to_be_shown(api: Api) -> None:
    for response in (
        api.client.get("/v1/models"),
        api.anonymous.get("/v1/models"),
        api.client.get("/v1/nothing"),
        api.anonymous.get("/healthz"),
    ):
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert response.headers["Cache-Control"] in ("no-store", "private, no-cache")
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "Strict-Transport-Security" not in response.headers
        assert "Access-Control-Allow-Origin" not in response.headers
    docs = api.anonymous.get("/docs").headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in docs
    assert "script-src" in docs


def test_tls_is_asked_for_by_setting(api_settings: Settings) -> None:
    for api in serve(api_settings.model_copy(update={"hsts_seconds": 600})):
        header = api.anonymous.get("/healthz").headers["Strict-Transport-Security"]
        assert header == "max-age=600"


def test_urls_and_headers_beyond_all_reason(api: Api) -> None:
    for options, status, kind in (
        ({"params": {"cursor": "x" * 9000}}, 414, "url-too-long"),
        ({"headers": {"X-Long": "x" * 33_000}}, 431, "headers-too-large"),
        ({"headers": {f"X-{number}": "" for number in range(101)}}, 431, "headers-too-large"),
    ):
        response = api.client.get("/v1/models", **options)  # type: ignore[arg-type]
        assert response.status_code == status
        assert response.json()["type"] == f"/problems/{kind}"


def test_json_that_goes_too_deep_is_refused(api: Api) -> None:
    body = b'{"metadata": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    response = api.client.post(
        "/v1/jobs", content=body, headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 400


def test_a_body_that_stops_coming_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrations.upgrade(f"sqlite:///{tmp_path / 'secateur.db'}")
    monkeypatch.setenv("SECATEUR_BODY_IDLE_SECONDS", "0.2")
    with live_server(tmp_path) as server:
        for path in ("/v1/jobs", "/v1/models"):
            with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
                key = server.headers["Authorization"]
                head = (
                    f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {key}\r\n"
                    "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
                )
                connection.sendall(head.encode())
                answer = connection.recv(65536)
                assert b" 408 " in answer.split(b"\r\n")[0], answer
                assert b"server: uvicorn" not in answer.lower()
        assert server.blobs() == []


def test_what_looks_like_a_secret_is_blotted_out() -> None:
    line = (
        '{"url": "postgresql+psycopg://me:hunter2@db/x", '
        '"path": "/v1/sk_01kaxq0f3m8s6e5v2t7c9d1r4w_abcdefgh", '
        '"key_id": "key_01kaxq0f3m8s6e5v2t7c9d1r4w", "w": "whsec_C2FVsBQIhrscChlQIMVb5sSY="}'
    )
    assert blot(line) == (
        '{"url": "postgresql+psycopg://me:***@db/x", "path": "/v1/sk_***", '
        '"key_id": "key_01kaxq0f3m8s6e5v2t7c9d1r4w", "w": "whsec_***"}'
    )
