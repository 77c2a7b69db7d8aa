"""TorchScript archives without the records that runtimes do not need.

Beside each piece of code torch stores where its lines came from, for error messages: tables that
take more bytes than the code. They are left out; the rest is copied as it is, tensors at multiples
of 64 bytes, so that a runtime can map them into memory.
"""

from __future__ import annotations

import io
import zipfile

_ALIGNMENT = 64
_HEADER = 30
_PADDING_FIELD = 0x4246
"""The number of an extra field ("FB") that torch's own archives pad with."""


def slimmed(archive: bytes) -> bytes:
    """The archive without source tables.

    Args:
        archive: what `torch.jit.save` wrote.
    """
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(made, "w") as target:
        for entry in source.infolist():
            if entry.filename.endswith(".debug_pkl"):
                continue
            data = source.read(entry)
            stored = "/data/" in entry.filename
            copied = zipfile.ZipInfo(entry.filename, date_time=(1980, 1, 1, 0, 0, 0))
            copied.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
            if stored:
                start = made.tell() + _HEADER + len(entry.filename.encode())
                copied.extra = _padding(-start % _ALIGNMENT)
            target.writestr(copied, data)
    return made.getvalue()


def _padding(length: int) -> bytes:
    """An extra field that makes the next byte one at a multiple of the alignment."""
    if length == 0:
        return b""
    length += _ALIGNMENT * (length < 4)
    content = length - 4
    return _PADDING_FIELD.to_bytes(2, "little") + content.to_bytes(2, "little") + bytes(content)
