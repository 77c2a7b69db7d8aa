"""`s3://bucket/prefix`: the name of a place in an object store."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def bucket_and_prefix(url: str) -> tuple[str, str]:
    """The bucket, and what stands in front of every key: empty or ending in a slash.

    Raises:
        ValueError: it is no such name.
    """
    without_credentials(url)
    parts = urlsplit(url)
    if parts.scheme != "s3" or parts.query or parts.fragment:
        raise ValueError("not of the form s3://bucket/prefix")
    if not _BUCKET.fullmatch(parts.netloc):
        raise ValueError(
            "the bucket's name has 3 to 63 lower-case letters, digits, dots and hyphens"
        )
    prefix = parts.path.strip("/")
    return parts.netloc, f"{prefix}/" if prefix else ""


def without_credentials(url: str) -> None:
    """Refuse a URL with a user or a password, and do not repeat it."""
    if "@" in urlsplit(url).netloc:
        raise ValueError(
            "the URL holds credentials; put them where AWS tools look for them "
            "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a file, the machine's role)"
        )
