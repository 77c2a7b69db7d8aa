"""Safetensors files: their tensors are views of the mapped file, which stays on disk."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from engine.errors import DatasetInvalid


def read_safetensors(path: Path) -> dict[str, Tensor]:
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
