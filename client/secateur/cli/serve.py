"""`secateur serve`: the embedded server of this machine."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from secateur.errors import SecateurError


def serve(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 8000,
    data_dir: Annotated[
        Path, typer.Option(help="Folder of the database, the artifacts and the scratch space.")
    ] = Path(".secateur"),
) -> None:
    """Run API and worker on this machine: SQLite, no broker, no container. Ctrl-C stops it."""
    if importlib.util.find_spec("service") is None:
        raise SecateurError(
            "this Python has the client only, not the server",
            hint="install the `secateur-server` distribution, or use a server elsewhere with "
            "SECATEUR_URL and SECATEUR_API_KEY",
        )
    arguments = [
        sys.executable, "-m", "service.embedded",
        "--port", str(port), "--data-dir", str(data_dir),
    ]  # fmt: skip
    os.execv(sys.executable, arguments)  # noqa: S606 - a fixed program, no shell
