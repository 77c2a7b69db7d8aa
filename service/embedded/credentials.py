"""The embedded server's tenant and key, and the files where clients find them.

The key is kept in the data folder and lives as long as it; the files that name the URL exist only
while the server serves.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from persistence import api_keys, tenants
from persistence.database import Database

TENANT = "embedded"


@dataclass(frozen=True)
class ClientFile:
    """What a client needs: where, with which key, and which process to believe."""

    url: str
    api_key: str
    pid: int


def ensure_key(database: Database, folder: Path) -> str:
    """The secret kept in the folder, or a new one when there is none or it opens nothing."""
    path = folder / "api_key"
    with database.session() as session:
        kept = path.read_text().strip() if path.exists() else ""
        if kept and api_keys.verify(session, kept) is not None:
            return kept
        tenant = tenants.get_or_create(session, TENANT)
        _, secret = api_keys.create(session, tenant_id=tenant.id, name="embedded server")
        _write_private(path, secret)
        return secret


def client_files(folder: Path) -> tuple[Path, Path]:
    """The file in the data folder and the file of the user."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return folder / "client.json", Path(state) / "secateur" / "embedded.json"


def announce(folder: Path, content: ClientFile) -> None:
    """Let clients on this machine find the server."""
    for path in client_files(folder):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write_private(path, json.dumps(asdict(content)))


def withdraw(folder: Path, pid: int) -> None:
    """Remove the files again, but not those of another server that came later."""
    for path in client_files(folder):
        if path.exists() and json.loads(path.read_text()).get("pid") == pid:
            path.unlink()


def _write_private(path: Path, text: str) -> None:
    """Replace the file in one step; nobody else can read it at any moment."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    temporary.replace(path)
