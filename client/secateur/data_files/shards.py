"""WebDataset: samples as neighbouring files of a tar that share their name up to the first dot.

`train/000001.png` and `train/000001.cls` are one sample with the extensions `png` and `cls`. The
files lie in one tar, below `train/` and `validation/`, or in several (shards: `train/000.tar`)
inside a tar or zip. See the WebDataset format, https://github.com/webdataset/webdataset.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from secateur.data_files.faults import DataFault
from secateur.data_files.image_folder import IMAGE_SUFFIXES, SPLITS, is_litter

_NAMES = (
    "Name the files of a sample alike up to the first dot, such as `train/000001.png` and "
    "`train/000001.cls`, one sample after the other."
)
EXTENSIONS = frozenset(suffix[1:] for suffix in IMAGE_SUFFIXES)


@dataclass(frozen=True)
class Sample:
    """One sample: its split, its key and the place of every file among all, by extension."""

    split: str
    key: str
    files: dict[str, int]


def is_shard(name: str) -> bool:
    """Whether a file is a shard by its name."""
    return PurePosixPath(name).suffix == ".tar" and name.partition("/")[0] in SPLITS


def is_sharded(names: Iterable[str]) -> bool:
    """Whether an archive holds shards, or lies in the layout of one: no folder for each class."""
    own = [name for name in names if not is_litter(name)]
    if any(is_shard(name) for name in own):
        return True
    files = [PurePosixPath(name) for name in own]
    return bool(files) and not all(file.suffix.lower() in IMAGE_SUFFIXES for file in files)


def split_name(name: str) -> tuple[str, str]:
    """Key and extension of a file; the extension is empty where there is none."""
    folder, slash, base = name.rpartition("/")
    key, _, extension = base.partition(".")
    return f"{folder}{slash}{key}", extension.lower()


def check_name(name: str) -> None:
    """Hold the name of a file against the format.

    Raises:
        DataFault: it belongs to no split, or has no extension.
    """
    if name.partition("/")[0] not in SPLITS or not split_name(name)[1]:
        raise DataFault(
            f"`{name}` belongs to no split, or has no extension.",
            hint=f"Put samples below `train/` and `validation/`. {_NAMES}",
            where=name,
        )


def samples_of_shards(names: Iterable[str]) -> Iterator[Sample]:
    """Files in the order of their tars, put together to samples.

    Raises:
        DataFault: a file belongs to no split, or a sample has an extension twice; names it.
    """
    key, split, files = "", "", dict[str, int]()
    for place, name in enumerate(names):
        if is_litter(name):
            continue
        check_name(name)
        own, extension = split_name(name)
        if own != key:
            if files:
                yield Sample(split, key, files)
            key, split, files = own, name.partition("/")[0], {}
        if extension in files:
            raise DataFault(f"`{name}` is there twice.", hint=_NAMES, where=name)
        files[extension] = place
    if files:
        yield Sample(split, key, files)


def columns_of(sample: Sample, columns: dict[str, str]) -> dict[str, str]:
    """Which extension of a sample is which input or target.

    Args:
        sample: the first of a split.
        columns: of the recipe; empty takes `png`, `jpg` and `jpeg` for `inputs/0`, `cls` for
            `targets/0`, and `inputs.0.npy` or `targets.0.npy` for what they say.

    Raises:
        DataFault: nothing is an input.
    """
    found = dict(columns)
    if not found:
        for extension in sample.files:
            role, _, rest = extension.partition(".")
            if extension in EXTENSIONS:
                found["inputs/0"] = extension
            elif extension == "cls":
                found["targets/0"] = extension
            elif role in ("inputs", "targets") and rest.endswith(".npy"):
                found[f"{role}/{rest.removesuffix('.npy')}"] = extension
    if not any(name.startswith("inputs/") for name in found):
        raise DataFault(
            f"Sample `{sample.key}` has no input; its extensions are "
            f"{', '.join(sorted(sample.files))}.",
            hint="Store images as png or jpg, arrays as `inputs.0.npy`, or say in the recipe "
            "which extension is the input: `data: {columns: {inputs/0: img.png}}`.",
            where=sample.key,
        )
    return found
