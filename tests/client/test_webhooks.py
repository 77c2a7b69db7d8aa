"""Webhooks through the SDK and the command line, against a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from secateur.client import Secateur
from secateur.errors import ApiError

import migrations
from tests.client.test_cli import secateur
from tests.service.live_server import LiveServer, live_server

URL = "https://ci.example.com/hook"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    url = f"sqlite:///{tmp_path / 'secateur.db'}"
    migrations.upgrade(url)
    with live_server(tmp_path) as running:
        yield running


def key(server: LiveServer) -> str:
    return server.headers["Authorization"].removeprefix("Bearer ")


def test_the_whole_life_of_a_webhook(server: LiveServer) -> None:
    with Secateur(server.url, key(server)) as client:
        made = client.webhooks.create(URL, event_types=["job.failed"], description="ci")
        assert made.secret is not None
        assert [hook.id for hook in client.webhooks.list()] == [made.id]
        assert client.webhooks.get(made).event_types == ["job.failed"]
        assert client.webhooks.update(made, description="other").description == "other"
        assert client.webhooks.rotate_secret(made, grace_seconds=5).secret != made.secret
        sent = client.webhooks.test(made)
        assert [one.id for one in client.webhooks.deliveries(made, status="pending")] == [sent.id]
        assert client.webhooks.delivery(made, sent).payload["type"] == "webhook.test"
        assert client.webhooks.redeliver(made, sent).status == "pending"
        client.webhooks.delete(made)
        with pytest.raises(ApiError, match="no webhook"):
            client.webhooks.get(made)


def test_the_command_line(server: LiveServer, tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        done = secateur(
            tmp_path, "webhooks", *arguments, "--url", server.url, SECATEUR_API_KEY=key(server)
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("create", URL, "--event", "job.failed").startswith("whsec_")
    (hook,) = json.loads(run("list", "--json"))
    assert (hook["url"], hook["event_types"], hook["secret"]) == (URL, ["job.failed"], None)
    sent = json.loads(run("test", hook["id"], "--json"))
    assert sent["id"] in run("deliveries", hook["id"])
    assert "pending" in run("redeliver", hook["id"], sent["id"])
    assert run("rotate", hook["id"]).startswith("whsec_")
    run("delete", hook["id"])
    assert run("list") == "no webhooks\n"


def test_the_command_line_says_what_is_wrong(server: LiveServer, tmp_path: Path) -> None:
    done = secateur(
        tmp_path, "webhooks", "create", "http://10.0.0.1/", "--url", server.url,
        SECATEUR_API_KEY=key(server),
    )  # fmt: skip
    assert done.returncode == 3
    assert "url" in done.stderr
    assert "Traceback" not in done.stderr
