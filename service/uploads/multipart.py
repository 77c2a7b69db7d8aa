"""One file out of a multipart form, as it streams by.

The framework's own form parser first writes the file to a temporary file; this one hands the
bytes on as they arrive, so an upload is written once.
"""

from __future__ import annotations

from collections.abc import Callable
from email.message import Message

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from service.uploads.problems import FormInvalid

_FIELD_BYTES = 1000


class FilePart:
    """Push parser: feed it the body, it passes on the bytes of the one file.

    Args:
        content_type: the request's header, with the boundary.
        sink: takes the file's bytes.
    """

    def __init__(self, content_type: str, sink: Callable[[bytes], None]) -> None:
        boundary = _parameters(content_type).get_param("boundary")
        if not isinstance(boundary, str) or not boundary:
            raise FormInvalid("The `Content-Type` header names no boundary.")
        self._sink = sink
        self._files = 0
        self._in_file = False
        self._field = ""
        self._header = (bytearray(), bytearray())
        self._headers: dict[str, str] = {}
        self._fields: dict[str, bytearray] = {}
        self._complete = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._part_begin,
                    "on_header_field": self._header_field,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_finished,
                    "on_part_data": self._part_data,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise FormInvalid(f"{error}.") from error

    def feed(self, data: bytes) -> None:
        """Parse the next bytes of the body."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise FormInvalid(f"{error}.") from error

    def finish(self) -> None:
        """Check that the form was whole and had its file."""
        if not self._complete:
            raise FormInvalid("The form ends before its closing boundary.")
        if not self._files:
            raise FormInvalid("The form has no file part.")

    @property
    def name(self) -> str | None:
        """The form's `name` field."""
        value = self._fields.get("name")
        return None if value is None else value.decode(errors="replace")

    def _part_begin(self) -> None:
        self._headers = {}

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def _header_end(self) -> None:
        name, value = (bytes(part).decode("utf-8", "replace") for part in self._header)
        self._headers[name.lower()] = value
        self._header = (bytearray(), bytearray())

    def _headers_finished(self) -> None:
        disposition = _parameters(self._headers.get("content-disposition", ""))
        self._in_file = disposition.get_param("filename") is not None
        if self._in_file:
            self._files += 1
            if self._files > 1:
                raise FormInvalid("The form has more than one file.")
            return
        field = disposition.get_param("name")
        if field != "name":
            raise FormInvalid(f"The form has an unknown field `{field}`.")
        self._field = "name"
        self._fields[self._field] = bytearray()

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._sink(data[start:end])
            return
        value = self._fields[self._field]
        value.extend(data[start:end])
        if len(value) > _FIELD_BYTES:
            raise FormInvalid(f"The field `{self._field}` is longer than {_FIELD_BYTES} bytes.")

    def _end(self) -> None:
        if any(0 in value for value in self._fields.values()):
            raise FormInvalid("A field of the form has a NUL character.")
        self._complete = True


def _parameters(header: str) -> Message:
    message = Message()
    message["Content-Type"] = header
    return message
