"""Writing an archive: every record of a TorchScript file by the coder that needs fewest bytes."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from secateur.archive.coders import (
    WORDS,
    Coded,
    NotThisCoder,
    compress,
    encode_indices,
    encode_plain,
    encode_shuffled,
    encode_words,
    encode_zstd,
)
from secateur.archive.container import IN_INDEX, Entry, Start, index_of
from secateur.archive.torchscript_zip import TorchScriptZip
from secateur.archive.unpack import Hashing, check
from secateur.errors import SecateurError
from secateur.files import new_file

_IN_INDEX_BYTES = 1 << 20
_PLAIN_BYTES = 1 << 12
_PIECE_BYTES = 1 << 18
_TENSORS = ("data/", "constants/")
_LEFT_OUT = (".debug_pkl", "/serialization_id")
"""Which lines of source made the code, and a hash of the records as torch wrote them."""


@dataclass(frozen=True)
class PackedIndices:
    """What a tensor's bytes are: so many packed indices of so many bits (`archive.indices`)."""

    count: int
    width: int


@dataclass(frozen=True)
class Packed:
    """An archive that was written.

    Attributes:
        size: its bytes.
        unpacked_size: those of the TorchScript file that it gives.
        unpacked_sha256: of that file, hexadecimal.
        coders: for every tensor record its coder, its bytes, and how many it takes in the archive
            before heads are compressed together.
    """

    size: int
    unpacked_size: int
    unpacked_sha256: str
    coders: Mapping[str, tuple[str, int, int]]


def content_key(content: bytes) -> str:
    """What names a tensor by its bytes."""
    return hashlib.sha256(content).hexdigest()


def pack(
    model: Path,
    archive: Path,
    *,
    indices: Mapping[str, PackedIndices] | None = None,
    overwrite: bool = False,
) -> Packed:
    """Write the archive of a TorchScript file, and unpack it once to see that it is right.

    What comes out of the archive has the records of `model`, byte for byte, in the one form of
    `secateur.archive.torchscript_zip`, but for the debug records: they say from which lines of
    source each line of code was made, which no run needs. A file that came out of an archive comes
    out of its own archive the same.

    Args:
        model: TorchScript file.
        archive: to write; whole or not at all.
        indices: what is known of tensors that are packed indices, by `content_key`. Without it
            they are coded as bytes.
        overwrite: whether `archive` may take the place of a file.

    Raises:
        SecateurError: the model cannot be read, or the archive cannot be written.
    """
    hashing = Hashing()
    zipped = TorchScriptZip(hashing)
    entries: list[Entry] = []
    heads = bytearray()
    with tempfile.TemporaryFile() as bodies, new_file(archive, overwrite=overwrite) as file:
        for name, content in _records(model):
            zipped.add(name, content)
            if not name.startswith(_TENSORS) and len(content) <= _IN_INDEX_BYTES:
                entries.append(Entry(name, len(content), IN_INDEX, (), 0, (), content))
                continue
            best = _best(content, (indices or {}).get(content_key(content)))
            heads += best.head
            size, bodies_sizes = len(content), tuple(map(len, best.bodies))
            entries.append(
                Entry(name, size, best.coder, best.parameters, len(best.head), bodies_sizes)
            )
            bodies.writelines(best.bodies)
        zipped.close()
        index = index_of(entries)
        frames = [compress(index, text=True), compress(bytes(heads))]
        lengths = [(len(frames[0]), len(index)), (len(frames[1]), len(heads))]
        start = Start(hashing.digest(), zipped.size, *lengths)
        file.writelines([start.to_bytes(), *frames])
        bodies.seek(0)
        shutil.copyfileobj(bodies, file)
        file.flush()
        check(Path(file.name), limit=zipped.size)
        size = file.tell()
    coders = {
        entry.name: (entry.coder, entry.size, entry.head + sum(entry.bodies))
        for entry in entries
        if entry.coder != IN_INDEX
    }
    return Packed(size, zipped.size, start.sha256.hex(), coders)


def _best(content: bytes, known: PackedIndices | None) -> Coded:
    """By the coder that takes fewest bytes; of a large record, fewest for a piece of its middle."""
    tried: dict[tuple[str, int], Callable[[bytes], Coded]] = {("zstd", 0): encode_zstd}
    for word in WORDS:
        tried[("words", word)] = partial(encode_words, word=word)
        tried[("shuffled", word)] = partial(encode_shuffled, word=word)
    if len(content) <= _PLAIN_BYTES:
        tried[("plain", 0)] = encode_plain
    coded = []
    if known is not None:
        with suppress(NotThisCoder):
            coded.append(encode_indices(content, known.count, known.width))
    if len(content) > 2 * _PIECE_BYTES:
        middle = len(content) // 2 // _PIECE_BYTES * _PIECE_BYTES
        piece = content[middle : middle + _PIECE_BYTES]
        costs = {key: one.cost for key, encode in tried.items() if (one := _tried(encode, piece))}
        # A palette that fits a piece need not fit the whole.
        tried = {key: tried[key] for key in (min(costs, key=costs.__getitem__), ("zstd", 0))}
    coded += [one for encode in tried.values() if (one := _tried(encode, content))]
    return min(coded, key=lambda one: one.cost)


def _tried(encode: Callable[[bytes], Coded], content: bytes) -> Coded | None:
    try:
        return encode(content)
    except NotThisCoder:
        return None


def _records(model: Path) -> Iterator[tuple[str, bytes]]:
    """Names without the root folder, and contents, in the order of the file."""
    try:
        with zipfile.ZipFile(model) as archive:
            for item in archive.infolist():
                _, separator, name = item.filename.partition("/")
                if not separator:
                    raise _no_torchscript(model, f"the record `{item.filename}` lies in no folder")
                if not name.endswith(_LEFT_OUT):
                    yield name, archive.read(item)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise _no_torchscript(model, str(error)) from error
    except OSError as error:
        raise SecateurError(
            f"cannot read {model}: {error.strerror}", hint="check the path"
        ) from error


def _no_torchscript(model: Path, reason: str) -> SecateurError:
    return SecateurError(
        f"{model} is no TorchScript file: {reason}", hint="give what torch.jit.save wrote"
    )
