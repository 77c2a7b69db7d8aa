"""Opening a dataset file of any format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.data.arrangement import arrange_columns
from engine.data.columns import Leaf
from engine.data.npz_file import read_npz
from engine.data.safetensors_file import read_safetensors
from engine.data.splits import Dataset


def open_dataset(
    path: Path,
    arguments: Sequence[str],
    values: Mapping[int, Any] | None = None,
    *,
    scratch: Path | None = None,
) -> Dataset:
    """Open a dataset file for a model whose `forward` takes `arguments`.

    Args:
        path: of the file; its suffix tells the format.
        arguments: names, in order.
        values: arguments that need no tensor, by position.
        scratch: folder for what must be unpacked before it can be read row by row.

    Raises:
        DatasetInvalid: unreadable, misnamed, empty or inconsistent; names the tensor.
    """
    columns: Mapping[str, Leaf] = (
        read_npz(path, scratch) if path.suffix == ".npz" else read_safetensors(path)
    )
    return arrange_columns(columns, arguments, values or {}, file=path.name)
