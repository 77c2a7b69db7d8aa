"""Opening a dataset file of any format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from secateur.data_files.shards import is_sharded
from secateur.recipe_data import Data

from engine.data.archive import Archive
from engine.data.arrangement import arrange_columns
from engine.data.columns import Leaf
from engine.data.npz_file import read_npz
from engine.data.safetensors_file import read_safetensors
from engine.data.splits import Dataset
from engine.data.token_windows import cut_tokens
from engine.data.transforming import transformed


def open_dataset(
    path: Path,
    arguments: Sequence[str],
    values: Mapping[int, Any] | None = None,
    *,
    data: Data | None = None,
    scratch: Path | None = None,
) -> Dataset:
    """Open a dataset file for a model whose `forward` takes `arguments`.

    Args:
        path: of the file; its suffix tells the format.
        arguments: names, in order.
        values: arguments that need no tensor, by position.
        data: of the recipe.
        scratch: folder for what must be unpacked before it can be read row by row.

    Raises:
        DatasetInvalid: unreadable, misnamed, empty or inconsistent; names the tensor or the file.
    """
    options = Data() if data is None else data
    columns, classes = _columns(path, options, scratch)
    columns = transformed(cut_tokens(columns, options.tokens), options, arguments)
    return arrange_columns(columns, arguments, values or {}, file=path.name, classes=classes)


def _columns(
    path: Path, data: Data, scratch: Path | None
) -> tuple[dict[str, Leaf], tuple[str, ...]]:
    """The columns of a file by name, and the names of its classes."""
    kind = path.suffix
    if kind == ".safetensors":
        return read_safetensors(path), ()
    if kind == ".npz":
        return read_npz(path, scratch), ()
    if kind in (".parquet", ".arrow"):
        from engine.data.tables import read_table  # noqa: PLC0415  pyarrow, where it is needed

        return read_table(path, data, scratch), ()
    archive = Archive.opened(path)
    if is_sharded(member.name for member in archive.members):
        from engine.data.shards import read_shards  # noqa: PLC0415  webdataset, likewise

        return read_shards(archive, data, scratch)
    from engine.data.image_folder import read_image_folder  # noqa: PLC0415  Pillow, likewise

    return read_image_folder(archive, data)
