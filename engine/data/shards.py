"""WebDataset: tars of samples, whose files share a name and differ in their extension.

The library `webdataset` streams shards in the order they are stored; training here reads samples
in an order that a seed decides and a resumed job repeats. So its rules say which files make a
sample, and the files are then read where they lie.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from secateur.data_files.image_folder import is_litter
from secateur.data_files.shards import EXTENSIONS, Sample, check_name, columns_of, is_shard
from secateur.recipe_data import Data
from webdataset.tariterators import group_by_keys

from engine.data.archive import Archive, Member
from engine.data.columns import Leaf
from engine.data.faults import data_faults
from engine.data.images import image_files
from engine.data.spool import Budget, Spool
from engine.errors import DatasetInvalid

_MAX_NUMBER_BYTES = 64


def read_shards(
    archive: Archive, data: Data, scratch: Path | None
) -> tuple[dict[str, Leaf], tuple[str, ...]]:
    """Columns by name; shards name no classes.

    Args:
        archive: a shard, or shards in a tar or zip.
        data: of the recipe.
        scratch: folder that arrays are unpacked into.

    Raises:
        DatasetInvalid: a sample lacks a file, or one cannot be read; names it.
    """
    reader = _Reader(archive, data, scratch)
    with data_faults():
        for sample in _samples(archive):
            reader.add(sample)
    return reader.columns(), ()


def _samples(archive: Archive) -> Iterator[dict[str, Any]]:
    """Files of every sample by extension, and `__key__`."""
    for member in archive.members:
        if is_shard(member.name):
            yield from _grouped(archive.shard(member))
    yield from _grouped([one for one in archive.members if not is_shard(one.name)])


def _grouped(members: list[Member]) -> Iterator[dict[str, Any]]:
    own = [member for member in members if not is_litter(member.name)]
    for member in own:
        check_name(member.name)
    files = ({"fname": member.name, "data": member, "__url__": ""} for member in own)
    try:
        yield from group_by_keys(files)
    except ValueError as error:
        raise DatasetInvalid(
            f"a sample of the dataset has two files of one name: {error.args[0]!s}",
            hint="name the files of a sample alike up to the first dot, each once",
            where=str(error.args[0]).partition(":")[0],
        ) from error


class _Reader:
    """Puts the files of samples into columns."""

    def __init__(self, archive: Archive, data: Data, scratch: Path | None) -> None:
        self._archive = archive
        self._data = data
        self._scratch = scratch
        self._budget = Budget(archive.path)
        self._wanted: dict[str, dict[str, str]] = {}
        self._images: dict[str, list[Member]] = {}
        self._numbers: dict[str, list[int]] = {}
        self._arrays: dict[str, Spool] = {}

    def add(self, sample: dict[str, Any]) -> None:
        """The files of one sample."""
        key = sample["__key__"]
        split = key.partition("/")[0]
        files = {name: file for name, file in sample.items() if not name.startswith("__")}
        if split not in self._wanted:
            first = Sample(split, key, dict.fromkeys(files, 0))
            wanted = columns_of(first, self._data.columns)
            if split == "unlabelled":
                wanted = {name: one for name, one in wanted.items() if name.startswith("inputs/")}
            self._wanted[split] = wanted
        for name, extension in self._wanted[split].items():
            member = _file(files, extension)
            if member is None:
                raise DatasetInvalid(
                    f"sample `{key}` has no file `.{extension}`, which is `{name}`",
                    hint="every sample of a split has the same files; add it, or remove the sample",
                    where=key,
                )
            self._place(f"{split}/{name}", extension, member)

    def _place(self, name: str, extension: str, member: Member) -> None:
        last = extension.rpartition(".")[2]
        if last in EXTENSIONS:
            self._images.setdefault(name, []).append(member)
        elif last in ("cls", "txt"):
            self._numbers.setdefault(name, []).append(self._number(member))
        elif last == "npy":
            if name not in self._arrays:
                if self._scratch is None:
                    raise ValueError("there is no folder to unpack arrays into")
                self._arrays[name] = Spool(self._scratch, name, self._budget)
            self._arrays[name].add(self._array(member)[None], f"`{member.name}`")
        else:
            raise DatasetInvalid(
                f"`{member.name}` is of a kind that is not read",
                hint="images (png, jpg), whole numbers (cls, txt) and arrays (npy) are",
                where=member.name,
            )

    def _number(self, member: Member) -> int:
        text = self._archive.read(member) if member.size <= _MAX_NUMBER_BYTES else b""
        try:
            return int(text)
        except ValueError as error:
            raise DatasetInvalid(
                f"`{member.name}` holds no whole number",
                hint="store the index of the class as text, such as `3`",
                where=member.name,
            ) from error

    def _array(self, member: Member) -> np.ndarray[Any, Any]:
        try:
            array = np.load(io.BytesIO(self._archive.read(member)), allow_pickle=False)
            torch.from_numpy(np.empty(0, array.dtype))
        except (ValueError, EOFError, OSError, TypeError) as error:
            raise DatasetInvalid(
                f"`{member.name}` is no array of numbers: {error}",
                hint="write it with `numpy.save`, as float32, int64 or uint8",
                where=member.name,
            ) from error
        return np.asarray(array)

    def columns(self) -> dict[str, Leaf]:
        """What was read, by name."""
        threads = torch.get_num_threads()
        found: dict[str, Leaf] = {
            name: image_files(self._archive, members, self._data.images.channels, threads=threads)
            for name, members in self._images.items()
        }
        found |= {name: torch.tensor(numbers) for name, numbers in self._numbers.items()}
        return found | {name: spool.tensor() for name, spool in self._arrays.items()}


def _file(files: dict[str, Member], extension: str) -> Member | None:
    """The file of a sample; one image format stands for another."""
    if extension in files or extension not in EXTENSIONS:
        return files.get(extension)
    return next((files[other] for other in sorted(EXTENSIONS) if other in files), None)
