"""Images in folders named after their class: `train/cat/1.png`, `validation/dog/7.jpg`.

The index of a class is its place among all class names of the training split, sorted. Samples are
in the order of their file names, sorted. A split `unlabelled` has no class folders, or any.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from secateur.data_files.faults import DataFault

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
SPLITS = ("train", "validation", "unlabelled")
MAX_PIXELS = 1 << 26
"""Of one image: 8192 x 8192."""
_FOLDERS = (
    "Put images into `train/<class>/` and `validation/<class>/`, with the same classes in both: "
    "PNG or JPEG files, and no others."
)
_LITTER = ("__MACOSX/", ".DS_Store", "Thumbs.db", "desktop.ini")


@dataclass(frozen=True)
class ImageFolder:
    """What the files of an archive mean.

    Attributes:
        classes: their names, by index.
        splits: file names of each split, in the order of its samples.
        targets: class index of each of them; splits without classes are left out.
    """

    classes: tuple[str, ...]
    splits: dict[str, tuple[str, ...]]
    targets: dict[str, tuple[int, ...]]


def is_litter(name: str) -> bool:
    """Whether a file is one that operating systems leave behind."""
    return name.startswith(_LITTER[0]) or PurePosixPath(name).name in _LITTER[1:]


def image_folder(names: Iterable[str], folders: Iterable[str] = ()) -> ImageFolder:
    """Classes and samples of the files of an archive.

    Args:
        names: of all files.
        folders: of all folders that the archive names.

    Raises:
        DataFault: a file is out of place, or a class is empty or missing in a split; names it.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for name in sorted(names):
        if is_litter(name):
            continue
        split, _, rest = name.partition("/")
        kind, _, file = rest.partition("/")
        if split not in SPLITS or not (file or split == "unlabelled"):
            raise DataFault(f"`{name}` lies in no class folder.", hint=_FOLDERS, where=name)
        if PurePosixPath(name).suffix.lower() not in IMAGE_SUFFIXES:
            raise DataFault(f"`{name}` is no PNG or JPEG file.", hint=_FOLDERS, where=name)
        found.setdefault(split, {}).setdefault(kind if file else "", []).append(name)
    for folder in sorted(folders):
        split, _, kind = folder.strip("/").partition("/")
        empty = kind and "/" not in kind and kind not in found.get(split, {})
        if split in SPLITS[:2] and empty and not is_litter(f"{folder.strip('/')}/"):
            raise DataFault(
                f"The class folder `{split}/{kind}` is empty.",
                hint="Put images into it, or remove it from all splits.",
                where=f"{split}/{kind}",
            )
    labelled = [split for split in SPLITS[:2] if split in found]
    if not labelled:
        raise DataFault("There is no image in `train/<class>/`.", hint=_FOLDERS, where="train")
    classes = tuple(sorted(found[labelled[0]]))
    for split in labelled:
        for kind in sorted(set(classes) ^ set(found[split])):
            lacking = split if kind in classes else labelled[0]
            other = labelled[0] if lacking == split else split
            raise DataFault(
                f"The class `{kind}` of `{other}` is missing in `{lacking}`.",
                hint=f"Put images of it into `{lacking}/{kind}/`, or remove the class.",
                where=f"{lacking}/{kind}",
            )
    number = {kind: index for index, kind in enumerate(classes)}
    splits = {
        split: tuple(name for kind in sorted(kinds) for name in kinds[kind])
        for split, kinds in found.items()
    }
    targets = {
        split: tuple(number[kind] for kind in sorted(found[split]) for _ in found[split][kind])
        for split in labelled
    }
    return ImageFolder(classes, splits, targets)
