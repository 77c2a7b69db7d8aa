"""An embedded server as a user runs it: processes, HTTP, SQLite, files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.torch import save_file
from secateur.client import Secateur
from secateur.discovery import Endpoint

from demo.server import embedded_server
from tests.e2e import models

REGISTRY = ".registry"
"""The lock of the scratch folder itself, which stays."""


@dataclass(frozen=True)
class Server:
    """A running server and its data folder."""

    endpoint: Endpoint
    folder: Path

    def debris(self) -> list[str]:
        """Files that a failed request or job left half-written."""
        scratch = self.folder / "scratch"
        left = [path for path in _below(scratch) if path.name != REGISTRY]
        left += [path for path in _below(self.folder / "artifacts") if _is_temporary(path)]
        return sorted(str(path.relative_to(self.folder)) for path in left)


def _below(folder: Path) -> list[Path]:
    """Everything in a folder; what goes while it is read is not left behind."""
    return [
        Path(at) / name for at, folders, files in os.walk(folder) for name in (*folders, *files)
    ]


def _is_temporary(path: Path) -> bool:
    """Finished artifacts are named by their 64 hexadecimal digits alone."""
    return path.is_file() and not (len(path.name) == 64 and path.name.isalnum())


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("embedded") / "data"
    # One thread: the models are tiny, and a second one would wait for the tests themselves.
    with embedded_server(folder, SECATEUR_RUNNER_THREADS="1") as endpoint:
        yield Server(endpoint, folder)


@pytest.fixture
def client(server: Server) -> Iterator[Secateur]:
    with Secateur(server.endpoint.url, server.endpoint.api_key) as client:
        yield client


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models and datasets as files."""
    folder = tmp_path_factory.mktemp("files")
    for name, model in models.scripted().items():
        model.save(str(folder / f"{name}.pt"))
    for name, tensors in models.datasets().items():
        save_file(tensors, folder / f"{name}.safetensors")
    return folder


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def secateur(server: Server, tmp_path: Path) -> Run:
    """Run the command line in a folder of its own, finding the server as a user's would."""

    def run(*arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith("SECATEUR_")
        }
        return subprocess.run(
            [str(Path(sys.executable).with_name("secateur")), *arguments],
            cwd=tmp_path, env=clean | {"XDG_STATE_HOME": str(server.folder / "state")},
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    return run
