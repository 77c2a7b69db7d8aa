from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from persistence.artifact_store import LocalArtifactStore, open_store
from persistence.artifact_store.s3 import S3ArtifactStore
from persistence.settings import Settings


def test_a_folder_unless_a_bucket_is_named(tmp_path: Path) -> None:
    assert isinstance(open_store(Settings(data_dir=tmp_path)), LocalArtifactStore)
    assert isinstance(open_store(Settings(data_dir=tmp_path, artifact_url="")), LocalArtifactStore)


@pytest.mark.parametrize(
    ("url", "prefix"),
    [("s3://my-bucket", ""), ("s3://my-bucket/", ""), ("s3://my-bucket/a/b/", "a/b/")],
)
def test_a_bucket_and_its_prefix(tmp_path: Path, url: str, prefix: str) -> None:
    store = open_store(Settings(data_dir=tmp_path, artifact_url=url))
    assert isinstance(store, S3ArtifactStore)
    assert (store.bucket.name, store.prefix) == ("my-bucket", prefix)
    assert store.key("ab" * 32) == f"{prefix}ab/ab/{'ab' * 32}"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"artifact_url": "s3://key:hidden@bucket/x"}, "holds credentials"),
        ({"artifact_s3_endpoint": "https://key:hidden@host"}, "holds credentials"),
        ({"artifact_url": "https://hidden/x"}, "s3://bucket/prefix"),
        ({"artifact_url": "s3://Hidden_/x"}, "bucket's name"),
        ({"artifact_url": "s3://hidden?x=1"}, "s3://bucket/prefix"),
        ({"artifact_s3_endpoint": "hidden:9000"}, "not an http"),
    ],
)
def test_a_wrong_setting_is_refused_and_not_repeated(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(**fields)
    assert said in str(caught.value)
    assert "hidden" not in str(caught.value).lower()


def test_a_folder_needs_no_client_of_object_stores() -> None:
    program = "import sys, service.app, workers.tasks; sys.exit('boto3' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
