"""The records of a TorchScript archive that make the program, checked one by one.

Everything else an archive may hold (serialisation ids, bytecode for phones, extra files) is not
read by `torch.jit.load` as the service calls it, and is left out of the copy that is kept.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass

from service.models.code_syntax import CodeUnreadable
from service.models.operators import (
    MAX_FINDINGS,
    Finding,
    defined_methods,
    refused_class,
    refused_operators,
)
from service.models.pickle_reader import MAX_OPCODES, read_pickle
from service.models.pickle_values import PickleContent, PickleRefused
from service.models.storage_types import TensorRefused, check_tensors
from service.uploads.zip_check import chunks

MAX_CODE_FILE_BYTES = 4 * 2**20
MAX_CODE_BYTES = 16 * 2**20
MAX_PICKLE_BYTES = 64 * 2**20
_CODE = re.compile(r"code/[A-Za-z0-9_/]+\.py")
_VERSION = re.compile(rb"([1-9][0-9]?)\n?")
VERSIONS = (".data/version", "version")
_PICKLES = ("constants.pkl", "data.pkl")
_FOLDERS = {"constants.pkl": "constants", "data.pkl": "data"}


class ProgramRefused(Exception):
    """A record breaks a rule.

    Args:
        reason: what is wrong, naming the record.
        hint: what to do, where it is not to save the model again.
    """

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


@dataclass(frozen=True)
class Record:
    """One record of the copy: its name below the root, and its bytes or where they are."""

    name: str
    source: bytes | zipfile.ZipInfo


@dataclass(frozen=True)
class Program:
    """A checked program.

    Attributes:
        records: in the order of the copy: what is small first, then the weights.
        findings: refused operators; the program is one only if there are none.
    """

    records: tuple[Record, ...]
    findings: tuple[Finding, ...]


def read_program(
    archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo], max_tensor_bytes: int
) -> Program:
    """Check all records but the bytes of the weights, which are checked when they are copied.

    Args:
        archive: opened.
        entries: of the archive, by their names below its root.
        max_tensor_bytes: the most that all tensors may have, written out.

    Raises:
        ProgramRefused: a record breaks a rule.
    """
    # torch from 1.12 on looks at the first of these first, and writes it for operators of late
    version_name = next(name for name in VERSIONS if name in entries)
    version = _VERSION.fullmatch(_read(archive, entries, version_name, 16))
    if version is None:
        raise ProgramRefused(f"The record `{version_name}` holds no version.")
    if "byteorder" in entries and _read(archive, entries, "byteorder", 16) != b"little":
        raise ProgramRefused(
            "The weights are written in big-endian order.", "Save the model on another machine."
        )
    records = [Record(version_name, version[1] + b"\n"), Record("byteorder", b"little")]
    budget = MAX_OPCODES
    pickles: dict[str, PickleContent] = {}
    weights: list[Record] = []
    for name in _PICKLES:
        data = _read(archive, entries, name, MAX_PICKLE_BYTES)
        content = pickles[name] = _pickle(name, data, budget)
        budget -= content.opcodes
        records.append(Record(name, data))
        weights += _weights(name, content, entries, max_tensor_bytes)
    _check_classes(pickles)
    sources = _sources(archive, entries)
    findings = _findings({entries[name].filename: data for name, data in sources.items()})
    for name, source in sorted(sources.items()):
        records.append(Record(name, source))
        lines = f"{name}.debug_pkl"
        if lines in entries:
            data = _read(archive, entries, lines, MAX_PICKLE_BYTES)
            budget -= _pickle(lines, data, budget, plain=True).opcodes
            records.append(Record(lines, data))
    return Program((*records, *weights), tuple(findings))


def _read(
    archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo], name: str, limit: int
) -> bytes:
    size = entries[name].file_size
    if size > limit:
        raise ProgramRefused(
            f"The record `{name}` has {size} bytes; {limit} are allowed.",
            "Keep large constants in parameters or buffers.",
        )
    return b"".join(chunks(archive, entries[name]))


def _pickle(name: str, data: bytes, budget: int, *, plain: bool = False) -> PickleContent:
    try:
        return read_pickle(data, plain=plain, max_opcodes=budget)
    except PickleRefused as error:
        raise ProgramRefused(f"The pickle `{name}` is refused: {error}.") from error


def _weights(
    name: str,
    content: PickleContent,
    entries: Mapping[str, zipfile.ZipInfo],
    max_tensor_bytes: int,
) -> list[Record]:
    """The records of the tensors of one pickle, in the order of their numbers."""
    folder = _FOLDERS[name]
    sizes = {
        path.removeprefix(f"{folder}/"): entry.file_size
        for path, entry in entries.items()
        if path.startswith(f"{folder}/")
    }
    try:
        used = check_tensors(content.tensors, sizes, max_tensor_bytes)
    except TensorRefused as error:
        raise ProgramRefused(f"The pickle `{name}` is refused: {error}.") from error
    return [
        Record(f"{folder}/{key}", entries[f"{folder}/{key}"])
        for key in sorted(used, key=lambda key: (len(key), key))
    ]


def _check_classes(pickles: Mapping[str, PickleContent]) -> None:
    for name, content in pickles.items():
        for used in sorted(content.classes | content.types):
            if reason := refused_class(used):
                raise ProgramRefused(f"The pickle `{name}` is refused: `{used[:200]}` {reason}.")


def _sources(archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo]) -> dict[str, bytes]:
    names = [name for name in entries if name.startswith("code/") and name.endswith(".py")]
    total = sum(entries[name].file_size for name in names)
    if total > MAX_CODE_BYTES:
        raise ProgramRefused(
            f"The code has {total} bytes; {MAX_CODE_BYTES} are allowed.",
            "Keep large constants in parameters or buffers, not in code.",
        )
    for name in names:
        if not _CODE.fullmatch(name):
            raise ProgramRefused(f"The code file {name!r} has a name that no class can have.")
    return {name: _read(archive, entries, name, MAX_CODE_FILE_BYTES) for name in names}


def _findings(sources: Mapping[str, bytes]) -> list[Finding]:
    texts = {}
    for name, source in sorted(sources.items()):
        try:
            texts[name] = source.decode("ascii")
        except UnicodeDecodeError as error:
            raise ProgramRefused(
                f"The code file `{name}` cannot be parsed: byte {error.start} is not ASCII."
            ) from error
    methods = frozenset(name for text in texts.values() for name in defined_methods(text))
    findings: list[Finding] = []
    for name, text in texts.items():
        try:
            findings += refused_operators(text, name, methods)
        except CodeUnreadable as error:
            raise ProgramRefused(f"The code file `{name}` cannot be parsed: {error}.") from error
        if len(findings) >= MAX_FINDINGS:
            break
    return findings[:MAX_FINDINGS]
