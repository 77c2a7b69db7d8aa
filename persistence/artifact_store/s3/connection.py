"""One bucket: requests with time limits and repeats, answers and errors in our own words.

The client library repeats nothing by itself, so that one rule holds for the whole of an exchange,
the body included.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import boto3
import botocore.config
import botocore.exceptions
import structlog

from persistence.artifact_store.errors import StoreUnavailable
from persistence.artifact_store.s3.faults import (
    TRANSPORT_ERRORS,
    TooSlow,
    Truncated,
    code_of,
    may_pass,
    status_of,
    unavailable,
)

PAUSES = (0.1, 0.4, 1.2, 3.6)
"""Seconds before each repeat, at most; half of it at least."""
PIECE_PATIENCE = 6
"""A piece of a file may take this many times what the server may be silent."""

_LONGEST_SILENCES = 2.5
"""Nothing is asked again after this many times what the server may be silent."""
_READ_BYTES = 1 << 16
_T = TypeVar("_T")
log = structlog.get_logger()


class Absent(Exception):
    """There is no such object."""


def s3_client(
    *, endpoint: str | None, region: str | None, path_style: bool, timeout_seconds: float
) -> Any:
    """A client with the credentials of the standard chain; safe to use from several threads."""
    config = botocore.config.Config(
        connect_timeout=timeout_seconds,
        read_timeout=timeout_seconds,
        retries={"total_max_attempts": 1, "mode": "standard"},
        max_pool_connections=32,
        tcp_keepalive=True,
        signature_version="s3v4",
        # the server checks the digest of what it receives; trailing checksums are not read
        # by every server that speaks S3
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={
            "addressing_style": "path" if path_style else "auto",
            "payload_signing_enabled": True,
        },
    )
    return boto3.session.Session().client(
        "s3", endpoint_url=endpoint, region_name=region or "us-east-1", config=config
    )


@dataclass(frozen=True)
class Bucket:
    """A bucket and how to speak with it.

    Attributes:
        client: of the client library.
        name: of the bucket.
        timeout_seconds: how long the server may be silent.
        pauses: before each repeat.
        piece_seconds: how long the answer to one reading request may take.
    """

    client: Any
    name: str
    timeout_seconds: float
    pauses: Sequence[float] = PAUSES
    piece_seconds: float = 60.0

    def call(self, operation: str, **arguments: Any) -> Any:
        """Ask for one operation, repeatedly where that may help.

        Raises:
            Absent: the object is not there.
            StoreUnavailable: no answer, or a refusal.
        """
        method = getattr(self.client, operation)
        return self._repeat(operation, lambda: method(Bucket=self.name, **arguments))

    def read(self, key: str, start: int, end: int) -> bytearray:
        """Bytes `start` to `end` of an object, all of them."""
        return self._repeat("get_object", lambda: self._read(key, start, end))

    def _read(self, key: str, start: int, end: int) -> bytearray:
        deadline = time.monotonic() + self.piece_seconds
        answer = self.client.get_object(Bucket=self.name, Key=key, Range=f"bytes={start}-{end - 1}")
        content = bytearray()
        with answer["Body"] as body:
            while piece := body.read(_READ_BYTES):
                content += piece
                if len(content) > end - start:
                    break
                if time.monotonic() > deadline:
                    raise TooSlow("a piece of a file took too long")
        if len(content) != end - start:
            raise Truncated(f"{len(content)} bytes came instead of {end - start}")
        return content

    def _repeat(self, operation: str, ask: Callable[[], _T]) -> _T:
        end = time.monotonic() + _LONGEST_SILENCES * self.timeout_seconds
        for pause in (*self.pauses, None):
            try:
                return ask()
            except (botocore.exceptions.BotoCoreError, *TRANSPORT_ERRORS) as error:
                fault: Exception = error
            except botocore.exceptions.ClientError as error:
                if status_of(error) == 404 and code_of(error) != "NoSuchBucket":
                    raise Absent from error
                fault = error
            if pause is None or not may_pass(fault) or time.monotonic() > end:
                raise unavailable(fault) from fault
            log.info("object store asked again", operation=operation, fault=type(fault).__name__)
            time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter needs no secrecy
        raise StoreUnavailable("the object store does not answer")  # never: the last pause is None
