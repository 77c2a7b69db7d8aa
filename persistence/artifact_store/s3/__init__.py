"""Blobs as objects of a bucket, behind any server that speaks Amazon's S3."""

from persistence.artifact_store.s3.store import S3ArtifactStore, s3_store

__all__ = ["S3ArtifactStore", "s3_store"]
