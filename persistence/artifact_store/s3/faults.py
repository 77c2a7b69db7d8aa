"""What an object store's refusals and silences mean."""

from __future__ import annotations

from typing import Any

import botocore.exceptions
import urllib3.exceptions

from persistence.artifact_store.errors import StoreUnavailable

_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
_BUSY_CODES = frozenset(
    {"SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "Throttling"}
)
_DAMAGED_CODES = frozenset({"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch"})
"""Other bytes arrived than were sent: the network's fault, so they are sent again."""
_SETTINGS = "Check SECATEUR_ARTIFACT_URL and the SECATEUR_ARTIFACT_S3_... settings."
_CREDENTIALS = (
    "Check the credentials where AWS tools look for them (AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, a file, the machine's role), and what they are allowed."
)

TRANSPORT_ERRORS = (
    botocore.exceptions.HTTPClientError,
    botocore.exceptions.IncompleteReadError,
    botocore.exceptions.ResponseStreamingError,
    botocore.exceptions.ReadTimeoutError,
    urllib3.exceptions.HTTPError,
    OSError,
)
"""The connection failed, in the words of three libraries."""


class Truncated(OSError):
    """The server sent another number of bytes than it said."""


class TooSlow(OSError):
    """A piece of a file took too long."""


def status_of(error: botocore.exceptions.ClientError) -> int:
    """HTTP status of a refusal."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def code_of(error: botocore.exceptions.ClientError) -> str:
    """S3's name of a refusal; empty where the answer had no body."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    return "" if code.isdigit() else code


def may_pass(error: Exception) -> bool:
    """Whether the same request may succeed a moment later."""
    if isinstance(error, botocore.exceptions.ClientError):
        return status_of(error) in _BUSY or code_of(error) in _BUSY_CODES | _DAMAGED_CODES
    return isinstance(error, TRANSPORT_ERRORS)


def unavailable(error: Exception) -> StoreUnavailable:
    """The error for users; what the server said in words stays in the log's traceback."""
    if isinstance(error, botocore.exceptions.ClientError):
        return _refusal(status_of(error), code_of(error), error.response)
    if isinstance(
        error,
        botocore.exceptions.NoCredentialsError
        | botocore.exceptions.PartialCredentialsError
        | botocore.exceptions.CredentialRetrievalError,
    ):
        return StoreUnavailable("there are no credentials for the object store", hint=_CREDENTIALS)
    return StoreUnavailable(
        f"the object store does not answer ({type(error).__name__})",
        hint=f"Look whether it runs and can be reached from here. {_SETTINGS}",
    )


def _refusal(status: int, code: str, response: Any) -> StoreUnavailable:
    if code == "NoSuchBucket":
        return StoreUnavailable("the bucket does not exist", hint=_SETTINGS)
    if status in (301, 307) or code in ("PermanentRedirect", "AuthorizationHeaderMalformed"):
        headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        region = headers.get("x-amz-bucket-region")
        where = f"; it is in {region}" if region else ""
        return StoreUnavailable(
            f"the bucket is not in the region that is set{where}",
            hint="Check SECATEUR_ARTIFACT_S3_REGION.",
        )
    said = f"{status} {code}".strip()
    if status in (401, 403):
        return StoreUnavailable(f"the object store refuses access ({said})", hint=_CREDENTIALS)
    return StoreUnavailable(f"the object store answers {said}", hint=_SETTINGS)
