"""Safetensors files: their tensors are views of the mapped file, which stays on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from engine.data.columns import Leaf
from engine.data.mapped import MappedRows
from engine.errors import DatasetInvalid

_NUMPY = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "I32": "<i4", "I64": "<i8",
    "F16": "<f2", "BF16": "<i2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip


def read_safetensors(path: Path) -> dict[str, Leaf]:
    """The tensors by name.

    Raises:
        DatasetInvalid: the file is damaged.
    """
    try:
        # The handle's tensors are views of the mapped file and outlive the handle.
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise DatasetInvalid(
            f"the dataset is not a readable safetensors file: {error}",
            hint="write it with `safetensors.torch.save_file`; an upload cut short must be redone",
            where=path.name,
        ) from error
    except RuntimeError as error:
        if "Cannot allocate memory" not in str(error):
            raise
        return _for_reading(path)


def _for_reading(path: Path) -> dict[str, Leaf]:
    """The same where the process may not map so much for writing (see `engine.data.mapped`).

    The library has checked the header by then.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    found: dict[str, Leaf] = {}
    for name, entry in header.items():
        shape, start = tuple(entry["shape"]), entry["data_offsets"][0] + 8 + length
        dtype = np.dtype(_NUMPY[entry["dtype"]])
        seen_as = torch.bfloat16 if entry["dtype"] == "BF16" else None
        if 0 in shape or not shape:
            found[name] = torch.empty(shape, dtype=seen_as or torch.float32)
        else:
            found[name] = MappedRows(np.memmap(path, dtype, "r", start, shape), seen_as)
    return found
