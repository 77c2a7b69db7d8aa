"""Small good archives, and ways to spoil them."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
from collections.abc import Callable
from functools import cache

import torch
from torch import nn

CODE = "archive/code/__torch__/tests/attacks/archives.py"
WEIGHTS = 8 * 4 * 4
Entries = list[tuple[str, bytes]]


class Good(nn.Module):
    """What every attack starts from."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.second = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))


def saved(module: nn.Module | torch.jit.ScriptModule) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        script = module if isinstance(module, torch.jit.ScriptModule) else torch.jit.script(module)
        torch.jit.save(script, buffer)
    return buffer.getvalue()


@cache
def good() -> bytes:
    torch.manual_seed(0)
    return saved(Good().eval())


def entries_of(archive: bytes) -> Entries:
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        return [(entry.filename, file.read(entry)) for entry in file.infolist()]


def zipped(entries: Entries, compression: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w", compression) as file:
        warnings.simplefilter("ignore")  # duplicate names are the point of some
        for name, data in entries:
            file.writestr(name, data)
    return out.getvalue()


def with_entry(name: str, data: bytes = b"x", compression: int = zipfile.ZIP_STORED) -> bytes:
    return zipped([*entries_of(good()), (name, data)], compression)


def changed(name: str, change: Callable[[bytes], bytes]) -> bytes:
    """The good archive with one record changed, checksums right."""
    spoiled = [(n, change(d) if n == name else d) for n, d in entries_of(good())]
    assert spoiled != entries_of(good())
    return zipped(spoiled)


def with_pickle(change: Callable[[bytes], bytes]) -> bytes:
    return changed("archive/data.pkl", change)


def replaced(old: bytes, new: bytes) -> bytes:
    return with_pickle(lambda data: data.replace(old, new, 1))


def with_code(text: str | bytes) -> bytes:
    """A function more in the code."""
    added = text.encode() if isinstance(text, str) else text
    return changed(CODE, lambda code: code + added)


def calling(*lines: str) -> bytes:
    body = "".join(f"  {line}\n" for line in lines)
    return with_code(f"def added(x: Tensor) -> Tensor:\n{body}  return x\n")


def with_state(pickled: bytes) -> bytes:
    """One attribute more in the state of the outermost object, of this value; what the pickle
    would remember after it is left out."""
    name = b"X\x05\x00\x00\x00extra"
    return with_pickle(lambda data: data[: data.rindex(b"ubq")] + name + pickled + b"ub.")


def with_bytes(offset: int, value: bytes, archive: bytes | None = None) -> bytes:
    """Bytes written over the file, from the end when the offset is negative."""
    data = bytearray(good() if archive is None else archive)
    start = offset % len(data)
    data[start : start + len(value)] = value
    return bytes(data)


def with_local_field(name: str, offset: int, value: bytes) -> bytes:
    """A field of one local header, changed; the directory still says the truth."""
    archive = zipped(entries_of(good()))
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        start = file.getinfo(name).header_offset
    return with_bytes(start + offset, value, archive)


def with_central_field(name: str, offset: int, value: bytes) -> bytes:
    """A field of one directory entry, changed."""
    archive = zipped(entries_of(good()))
    start = archive.rindex(name.encode()) - 46
    assert archive[start : start + 4] == b"PK\x01\x02"
    return with_bytes(start + offset, value, archive)


def with_end64(entries: int | None = None, offset: int | None = None) -> bytes:
    """The same archive with a 64-bit end record that says something else."""
    archive = zipped(entries_of(good()))
    fields = struct.unpack("<4s4H2LH", archive[-22:])
    count, length, start = fields[4], fields[5], fields[6]
    end64 = struct.pack(
        *("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0),
        *(entries or count, entries or count, length, start if offset is None else offset),
    )
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, len(archive) - 22, 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)
    return archive[:-22] + end64 + locator + end
