"""Small datasets in every format, written as users write them."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile

import numpy as np
from PIL import Image


def png(value=0, size=(4, 4), mode="L", kind="PNG"):
    """An image file of one value; `size` is width and height."""
    file = io.BytesIO()
    bands = len(Image.new(mode, (1, 1)).getbands())
    Image.new(mode, size, value if bands == 1 else (value,) * bands).save(file, kind)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def zip_of(path, files, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def tar_bytes(files, form=tarfile.PAX_FORMAT):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def tar_of(path, files, form=tarfile.PAX_FORMAT):
    path.write_bytes(tar_bytes(files, form))
    return path


def packed(path, files):
    """A zip or tar by the suffix."""
    return zip_of(path, files) if path.suffix == ".zip" else tar_of(path, files)


def folder_of_images(classes=("cat", "dog"), each=2, **options):
    """Files of an image folder; pixel values tell class and number."""
    return {
        f"{split}/{kind}/{number}.png": png(10 * place + number, **options)
        for split in ("train", "validation")
        for place, kind in enumerate(classes)
        for number in range(each)
    }


def sparse_safetensors(path, samples, row):
    """A file of float32 zeros whose bytes take no room on the disk."""
    end = samples * row * 4
    entry = {"dtype": "F32", "shape": [samples, row], "data_offsets": [0, end]}
    header = json.dumps({"train/inputs/0": entry}).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + end)
    return path
