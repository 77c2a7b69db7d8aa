"""API keys through the SDK and the command line, against a real server."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from secateur.client import Secateur
from secateur.errors import ApiError

import migrations
from tests.client.test_cli import secateur
from tests.service.live_server import live_server


def test_the_whole_life_of_a_key(tmp_path: Path) -> None:
    migrations.upgrade(f"sqlite:///{tmp_path / 'secateur.db'}")
    with live_server(tmp_path) as server:
        own = server.headers["Authorization"].removeprefix("Bearer ")
        with Secateur(server.url, own) as client:
            end = datetime.now(UTC) + timedelta(days=1)
            made = client.keys.create("ci", scopes=["read"], expires_at=end)
            assert (made.scopes, made.expires_at) == (["read"], end)
            new = client.keys.rotate(made, grace_seconds=5)
            assert client.keys.get(made).replaced_by_id == new.id
            with Secateur(server.url, new.secret) as reader:
                assert list(reader.models()) == []
                with pytest.raises(ApiError, match="scope `admin`"):
                    reader.keys.revoke(made)
            client.keys.revoke(new)
            last = list(client.keys.list())[-1]
            with pytest.raises(ApiError, match=last.id):
                client.keys.revoke(last)

        def run(*arguments: str) -> str:
            done = secateur(tmp_path, "keys", *arguments, "--url", server.url, SECATEUR_API_KEY=own)
            assert done.returncode == 0, done.stderr
            return done.stdout

        assert len(run("create", "mine", "--scope", "write", "--days", "2").strip()) == 79
        listed = json.loads(run("list", "--json"))
        assert [key["name"] for key in listed] == ["mine", "ci", "ci", "live"]
        assert listed[0]["scopes"] == ["write"]
        assert len(run("rotate", listed[0]["id"]).strip()) == 79
        assert "revoked" in run("revoke", listed[0]["id"])
        assert "revoked" in run("revoke", listed[-1]["id"], "--force")
