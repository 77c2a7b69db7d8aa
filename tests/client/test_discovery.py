from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from secateur.discovery import Endpoint, discover, embedded_file
from secateur.errors import ServerNotFound


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SECATEUR_URL", raising=False)
    monkeypatch.delenv("SECATEUR_API_KEY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def run_embedded(pid: int) -> None:
    embedded_file().parent.mkdir(parents=True)
    content = {"url": "http://127.0.0.1:8000/", "api_key": "embedded", "pid": pid}
    embedded_file().write_text(json.dumps(content))


def test_arguments_before_environment_before_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    run_embedded(os.getpid())
    assert discover() == Endpoint("http://127.0.0.1:8000", "embedded")
    monkeypatch.setenv("SECATEUR_URL", "http://a.example")
    monkeypatch.setenv("SECATEUR_API_KEY", "from-environment")
    assert discover() == Endpoint("http://a.example", "from-environment")
    assert discover("http://b.example/", "k") == Endpoint("http://b.example", "k")


def test_the_embedded_key_is_sent_to_the_embedded_server_only() -> None:
    run_embedded(os.getpid())
    assert discover("http://127.0.0.1:8000").api_key == "embedded"
    assert discover("http://elsewhere.example").api_key is None


def test_the_file_of_a_dead_server_is_not_believed() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    run_embedded(gone.pid)
    with pytest.raises(ServerNotFound) as caught:
        discover()
    assert "secateur serve" in caught.value.hint


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"url": 1, "api_key": "k", "pid": "x"}'])
def test_a_damaged_file_is_no_server(content: str) -> None:
    embedded_file().parent.mkdir(parents=True)
    embedded_file().write_text(content)
    with pytest.raises(ServerNotFound):
        discover()
