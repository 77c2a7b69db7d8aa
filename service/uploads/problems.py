"""What can be wrong with an upload before anyone looks at its content."""

from __future__ import annotations

from service.problems import ProblemError


class UploadTooLarge(ProblemError):
    """More bytes than the server takes."""

    status = 413
    type = "upload-too-large"
    title = "The upload is too large"

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"The file is larger than {limit} bytes.",
            hint="`GET /v1/limits` shows the limits of this server; its operator can raise them.",
            headers={"Connection": "close"},
        )


class UploadTruncated(ProblemError):
    """Fewer bytes came than were announced."""

    status = 400
    type = "upload-truncated"
    title = "The upload ended early"

    def __init__(self, detail: str) -> None:
        super().__init__(
            detail, hint="Nothing was stored. Send the file again.", headers={"Connection": "close"}
        )


class UploadEncoded(ProblemError):
    """The body is compressed on the way."""

    status = 415
    type = "content-encoding-unsupported"
    title = "The upload is compressed"

    def __init__(self, encoding: str) -> None:
        super().__init__(
            f"The body was sent with `Content-Encoding: {encoding}`.",
            hint="Send the file's own bytes, without `Content-Encoding`.",
            headers={"Accept-Encoding": "identity", "Connection": "close"},
        )


class UploadEmpty(ProblemError):
    """No bytes at all."""

    status = 400
    type = "upload-empty"
    title = "The upload is empty"

    def __init__(self) -> None:
        super().__init__(
            "The request carries no file.",
            hint="Send the file's bytes as the body (`curl --data-binary @model.pt`), or as a "
            "multipart form with one file.",
        )


class FormInvalid(ProblemError):
    """The multipart form is not one, or holds other than one file."""

    status = 400
    type = "form-invalid"
    title = "The multipart form cannot be read"

    def __init__(self, detail: str) -> None:
        super().__init__(
            detail,
            hint="Send one file part and, if wanted, a `name` field; or the file's bytes as the "
            "whole body.",
            headers={"Connection": "close"},
        )


class DigestInvalid(ProblemError):
    """The digest header cannot be read."""

    status = 400
    type = "digest-invalid"
    title = "The digest header cannot be read"


class DigestMismatch(ProblemError):
    """Other bytes arrived than were announced."""

    status = 400
    type = "digest-mismatch"
    title = "The bytes do not match their digest"

    def __init__(self, announced: str, received: str) -> None:
        super().__init__(
            f"Announced was sha-256 {announced}, received was {received}.",
            hint="Nothing was stored. The file changed on the way or the header is of another "
            "file; send both again.",
        )


class UploadInterfered(ProblemError):
    """Someone deleted the same bytes between their arrival and their registration."""

    status = 503
    type = "upload-interfered"
    title = "The upload met a deletion of the same content"

    def __init__(self) -> None:
        super().__init__(
            "The same bytes were deleted while they were being uploaded.",
            hint="Send the file again.",
            headers={"Retry-After": "1"},
        )
