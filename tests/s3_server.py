"""An S3-speaking server for the tests: moto's, in a process of its own on the loopback.

It keeps objects, multipart uploads and presigned URLs; it checks neither signatures nor permissions
nor digests (the fault proxy checks digests).

    with s3_server() as server:
        bucket = server.make_bucket()
        settings = Settings(data_dir=folder, **server.settings(bucket))
        with server.credentials(): ...     # or put server.environment into a process's own
"""

from __future__ import annotations

import os
import secrets
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from unittest.mock import patch

import boto3
import botocore.config

from tests.services import HOST, free_port, private_folder, server_process

ACCESS_KEY = "tests-access-key"
SECRET_KEY = "tests-secret-key-never-to-be-shown"


@lru_cache
def _client(url: str) -> Any:
    # made once: the client library reads a megabyte of descriptions each time
    session = boto3.session.Session(aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY)
    path = botocore.config.Config(s3={"addressing_style": "path"})
    return session.client("s3", endpoint_url=url, region_name="us-east-1", config=path)


@dataclass(frozen=True)
class S3Server:
    """A running server.

    Attributes:
        port: where it listens.
    """

    port: int

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """Credentials as the standard chain reads them, and nothing looked up elsewhere."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    @contextmanager
    def credentials(self) -> Iterator[None]:
        """The credentials in this process's environment until the block ends."""
        with patch.dict(os.environ, self.environment):
            yield

    def client(self) -> Any:
        """A client past any fault proxy, to look at what is there."""
        return _client(self.url)

    def make_bucket(self) -> str:
        """A fresh bucket; its name."""
        name = f"tests-{secrets.token_hex(8)}"
        self.client().create_bucket(Bucket=name)
        return name

    def settings(self, bucket: str, *, prefix: str = "", url: str | None = None) -> dict[str, Any]:
        """Fields of `Settings` for a store in the bucket.

        Args:
            bucket: its name.
            prefix: in front of every key.
            url: of a proxy in front of the server.
        """
        return {
            "artifact_url": f"s3://{bucket}/{prefix}",
            "artifact_s3_endpoint": url or self.url,
            "artifact_s3_region": "us-east-1",
            "artifact_s3_path_style": True,
        }

    def keys(self, bucket: str) -> list[str]:
        """Every key in the bucket."""
        found = self.client().list_objects_v2(Bucket=bucket)
        return [entry["Key"] for entry in found.get("Contents", ())]

    def unfinished(self, bucket: str) -> int:
        """Multipart uploads that were neither completed nor aborted."""
        return len(self.client().list_multipart_uploads(Bucket=bucket).get("Uploads", ()))


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Run a server until the block ends."""
    port = free_port()

    def ready() -> None:
        with urllib.request.urlopen(f"http://{HOST}:{port}/moto-api/data.json", timeout=5) as got:
            got.read()

    arguments = [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)]
    with private_folder(None) as folder, server_process(arguments, ready, folder / "log"):
        yield S3Server(port)
