"""Images in folders named after their class, in a zip or tar: inputs and targets of a dataset."""

from __future__ import annotations

import torch
from secateur.data_files.image_folder import image_folder
from secateur.recipe_data import Data

from engine.data.archive import Archive
from engine.data.columns import Leaf
from engine.data.faults import data_faults
from engine.data.images import image_files


def read_image_folder(archive: Archive, data: Data) -> tuple[dict[str, Leaf], tuple[str, ...]]:
    """Columns by name, and the names of the classes by their index.

    Raises:
        DatasetInvalid: a file is out of place, a class is missing, or an image cannot be read.
    """
    by_name = {member.name: member for member in archive.members}
    with data_faults():
        found = image_folder(by_name)
    columns: dict[str, Leaf] = {}
    threads = torch.get_num_threads()
    for split, names in found.splits.items():
        members = [by_name[name] for name in names]
        columns[f"{split}/inputs/0"] = image_files(
            archive, members, data.images.channels, threads=threads
        )
        if split in found.targets:
            columns[f"{split}/targets/0"] = torch.tensor(found.targets[split])
    return columns, found.classes
