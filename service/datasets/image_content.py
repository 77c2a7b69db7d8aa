"""Images: the size and channels that all of a split have, and folders of them as a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from secateur.data_files.image_folder import image_folder
from secateur.resources import TensorInfo

from service.datasets.image_header import ImageHeader, read_image_header
from service.datasets.samples import Content, File


def folder_content(files: Sequence[File], folders: Iterable[str]) -> Content:
    """Images in folders named after their class.

    Raises:
        DataFault: a file is out of place or no image, or a class is empty or missing.
    """
    by_name = {file.name: file for file in files}
    found = image_folder(by_name, folders)
    tensors = []
    for split, names in found.splits.items():
        headers = [read_image_header(by_name[name].head(), name) for name in names]
        tensors.append(image_tensor(f"{split}/inputs/0", headers))
        if split in found.targets:
            shape: list[int | None] = [len(names)]
            classes = list(found.classes)
            tensors.append(
                TensorInfo(name=f"{split}/targets/0", dtype="int64", shape=shape, classes=classes)
            )
    return Content(tensors, {split: len(names) for split, names in found.splits.items()})


def image_tensor(name: str, headers: Sequence[ImageHeader]) -> TensorInfo:
    """What images make together; sizes that differ are null."""
    kinds: list[set[int] | set[int | None]] = [
        {header.channels for header in headers},
        {header.height for header in headers},
        {header.width for header in headers},
    ]
    sizes = [next(iter(kind)) if len(kind) == 1 else None for kind in kinds]
    return TensorInfo(name=name, dtype="uint8", shape=[len(headers), *sizes])
