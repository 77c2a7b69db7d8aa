"""A folder as one file: a zip with the same bytes for the same content."""

from __future__ import annotations

import shutil
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile, ZipInfo

_EPOCH = (1980, 1, 1, 0, 0, 0)
_MODE = 0o644 << 16


def pack(folder: Path, target: Path) -> None:
    """Write every file of the folder to a zip, by its path within it.

    Stored, not compressed: nearly all of it is weights, which do not get smaller.
    """
    with ZipFile(target, "w", ZIP_STORED) as archive:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = ZipInfo(file.relative_to(folder).as_posix(), _EPOCH)
            entry.external_attr = _MODE
            entry.file_size = file.stat().st_size
            with file.open("rb") as source, archive.open(entry, "w") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
