"""Which store a process uses: the settings say."""

from __future__ import annotations

from functools import lru_cache

from persistence.artifact_store.errors import StoreUnavailable
from persistence.artifact_store.interface import ArtifactStore
from persistence.artifact_store.local import LocalArtifactStore
from persistence.settings import Settings, settings


def open_store(settings: Settings) -> ArtifactStore:
    """The store that the settings name; it is not asked anything yet.

    Raises:
        StoreUnavailable: the settings name an object store and its client is not installed.
    """
    if settings.artifact_url is None:
        return LocalArtifactStore(settings.resolved_artifact_dir)
    try:
        # boto3 takes half a second to import and is needed here alone
        from persistence.artifact_store.s3 import s3_store  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise StoreUnavailable(
            "SECATEUR_ARTIFACT_URL names an object store, but boto3 is not installed",
            hint="Install the extra `s3`: pip install 'secateur-server[s3]'.",
        ) from error
    return s3_store(settings)


@lru_cache
def artifact_store() -> ArtifactStore:
    """The artifact store of this process, from the settings."""
    return open_store(settings())
