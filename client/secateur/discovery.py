"""Which server to talk to: arguments, then the environment, then the embedded server.

`secateur serve` leaves its URL and key in a per-user file, so that on one machine nothing needs
to be configured. The file is believed only while its process lives.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from secateur.errors import ServerNotFound

START_HINT = (
    "start one with `secateur serve` (embedded, on this machine), "
    "or name one with SECATEUR_URL and SECATEUR_API_KEY"
)


@dataclass(frozen=True)
class Endpoint:
    """A server and the key to use it."""

    url: str
    api_key: str | None


def embedded_file() -> Path:
    """Where an embedded server leaves its URL and key for this user."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "secateur" / "embedded.json"


def discover(url: str | None = None, api_key: str | None = None) -> Endpoint:
    """The server to use.

    Args:
        url: overrides `SECATEUR_URL` and the embedded server.
        api_key: overrides `SECATEUR_API_KEY` and the embedded server's key.

    Raises:
        ServerNotFound: nothing was given and no embedded server runs.
    """
    url = url or os.environ.get("SECATEUR_URL")
    api_key = api_key or os.environ.get("SECATEUR_API_KEY")
    embedded = _embedded()
    if url is None:
        if embedded is None:
            raise ServerNotFound("no server was named and none runs here", hint=START_HINT)
        return Endpoint(embedded.url, api_key or embedded.api_key)
    url = url.rstrip("/")
    if api_key is None and embedded is not None and embedded.url == url:
        api_key = embedded.api_key
    return Endpoint(url, api_key)


def read_client_file(path: Path) -> Endpoint | None:
    """The endpoint in a `client.json`; None when absent, unreadable or its process is gone."""
    try:
        content = json.loads(path.read_text())
        endpoint = Endpoint(str(content["url"]).rstrip("/"), str(content["api_key"]))
        return endpoint if _alive(int(content["pid"])) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _embedded() -> Endpoint | None:
    return read_client_file(embedded_file())


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
