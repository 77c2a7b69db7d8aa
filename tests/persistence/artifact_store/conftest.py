"""The stores that the suite holds for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from persistence.artifact_store import ArtifactStore
from tests.persistence.artifact_store.store_world import StoreWorld, local_world, s3_world


@pytest.fixture(params=["local", "s3"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreWorld]:
    """An empty store: once a folder, once a bucket."""
    if request.param == "local":
        yield local_world(tmp_path)
        return
    with s3_world(tmp_path, request.getfixturevalue("s3_service")) as found:
        yield found


@pytest.fixture
def store(world: StoreWorld) -> ArtifactStore:
    return world.store
