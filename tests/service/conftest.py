"""The real application on a fresh database, with the API keys of two tenants."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from fastapi import FastAPI
from safetensors.numpy import save
from starlette.testclient import TestClient

import migrations
from persistence import api_keys, tenants
from persistence.settings import Settings
from service.app import create_app
from service.context import Backend
from service.models.archive_gate import check_archive
from service.models.service import zip_limits


@dataclass(frozen=True)
class Api:
    """The application, its backend, and a client for each of two tenants."""

    app: FastAPI
    backend: Backend
    client: TestClient
    stranger: TestClient
    anonymous: TestClient
    tenant_id: str

    def blobs(self) -> list[Path]:
        """Every file in the artifact store, half-written ones included."""
        root = self.backend.settings.resolved_artifact_dir
        return [path for path in root.rglob("*") if path.is_file()]


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "template.db"
    migrations.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def api_settings(tmp_path: Path, migrated_sqlite: Path) -> Settings:
    """Settings on a migrated SQLite file of its own."""
    shutil.copy(migrated_sqlite, tmp_path / "secateur.db")
    return Settings(data_dir=tmp_path)


def serve(settings: Settings) -> Iterator[Api]:
    app = create_app(settings)
    backend: Backend = app.state.backend
    clients = []
    with backend.database.session() as session:
        owner = tenants.get_or_create(session, "owner").id
        for tenant in (owner, tenants.get_or_create(session, "stranger").id):
            _, secret = api_keys.create(session, tenant_id=tenant, name="test")
            headers = {"Authorization": f"Bearer {secret}"}
            clients.append(TestClient(app, headers=headers, follow_redirects=False))
    anonymous = TestClient(app)
    with anonymous:
        for client in clients:
            client.portal = anonymous.portal  # one event loop for all, as in a server
        yield Api(app, backend, clients[0], clients[1], anonymous, owner)


@pytest.fixture
def api(api_settings: Settings) -> Iterator[Api]:
    """The application on SQLite."""
    yield from serve(api_settings)


@pytest.fixture
def sql_api(database_url: str, tmp_path: Path) -> Iterator[Api]:
    """The application once on SQLite and once on PostgreSQL."""
    migrations.upgrade(database_url)
    yield from serve(Settings(data_dir=tmp_path, database_url=database_url))  # type: ignore[arg-type]


class TinyNet(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU())
        self.classifier = torch.nn.Linear(4 * 36, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).flatten(1))


def scripted(module: torch.nn.Module) -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(module), buffer)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def model_file() -> bytes:
    torch.manual_seed(0)
    return scripted(TinyNet())


def copied(content: bytes, folder: Path) -> bytes:
    """The copy that the service keeps of a model."""
    path = folder / "to_copy.pt"
    path.write_bytes(content)
    copy = bytearray()
    check_archive(path, zip_limits(Settings()), copy.extend)
    return bytes(copy)


@pytest.fixture(scope="session")
def model_copy(model_file: bytes, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What the service keeps, and sends, of `model_file`."""
    return copied(model_file, tmp_path_factory.mktemp("copy"))


def dataset_arrays() -> dict[str, np.ndarray]:
    return {
        "train/inputs/0": np.zeros((12, 1, 8, 8), np.float32),
        "train/targets/0": np.arange(12, dtype=np.int64) % 10,
        "validation/inputs/0": np.zeros((4, 1, 8, 8), np.float32),
        "validation/targets/0": np.arange(4, dtype=np.int64),
    }


@pytest.fixture(scope="session")
def dataset_file() -> bytes:
    return save(dataset_arrays())


@pytest.fixture
def recipe() -> dict[str, object]:
    return {
        "inputs": [{"shape": [1, 1, 8, 8]}],
        "stages": [{"stage": "prune", "allocation": {"amount": 0.5}}],
    }
