"""Parquet and Arrow files: columns named for inputs and targets, a row a sample.

A column is a number a row, a list of as many numbers in every row (nested lists make more
dimensions), a fixed-shape tensor, or an encoded image (binary, or a struct with `bytes`). Pages of
a table have no place for a single row, so the file is read through once, some rows at a time, into
the job's scratch folder (see `engine.data.spool`). The column `split` tells which split a row is
of; without it all rows are `train`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from secateur.data_files.image_folder import SPLITS
from secateur.recipe_data import Data

from engine.data.columns import Leaf
from engine.data.images import image_files
from engine.data.spool import Budget, Spool
from engine.errors import DatasetInvalid

_ROWS = 1024
_SPLIT = "split"


def read_table(path: Path, data: Data, scratch: Path | None) -> dict[str, Leaf]:
    """Columns by name.

    Args:
        path: of the file; its suffix tells the format.
        data: of the recipe.
        scratch: folder that rows are written into.

    Raises:
        DatasetInvalid: the file is damaged; a column is missing, holds nulls, or lists of
            different lengths; names column and row.
    """
    if scratch is None:
        raise ValueError("there is no folder to unpack a table into")
    try:
        with pa.memory_map(str(path)) as source:
            schema, batches = _opened(path, source)
            return _Reader(path, schema, data, scratch).read(batches)
    except (pa.ArrowException, OSError) as error:
        raise DatasetInvalid(
            f"the dataset is not a readable {path.suffix[1:]} file: {str(error).splitlines()[0]}",
            hint="write it with `pyarrow.parquet.write_table` or `pyarrow.ipc.new_file`",
            where=path.name,
        ) from error


def _opened(path: Path, source: Any) -> tuple[Any, Iterator[Any]]:
    if path.suffix == ".parquet":
        file = pq.ParquetFile(source, pre_buffer=False)
        return file.schema_arrow, file.iter_batches(_ROWS)
    reader = pa.ipc.open_file(source)
    return reader.schema, (
        whole.slice(start, _ROWS)
        for number in range(reader.num_record_batches)
        for whole in [reader.get_batch(number)]
        for start in range(0, whole.num_rows, _ROWS)
    )


class _Reader:
    """Reads record batches into spools."""

    def __init__(self, path: Path, schema: Any, data: Data, scratch: Path) -> None:
        self._data = data
        self._scratch = scratch
        self._budget = Budget(path)
        self._columns = _columns(schema.names, data.columns, path.name)
        self._has_splits = _SPLIT in schema.names
        self._spools: dict[str, Spool] = {}
        self._row = 0

    def read(self, batches: Iterator[Any]) -> dict[str, Leaf]:
        """All batches."""
        for batch in batches:
            splits = self._splits(batch)
            for name, column in self._columns.items():
                self._add(name, column, batch.column(column), splits)
            self._row += batch.num_rows
        found: dict[str, Leaf] = {}
        for name, spool in self._spools.items():
            if spool.members:
                found[name] = image_files(
                    spool.archive(),
                    spool.members,
                    self._data.images.channels,
                    threads=torch.get_num_threads(),
                )
            else:
                found[name] = spool.tensor()
        return found

    def _splits(self, batch: Any) -> NDArray[Any]:
        if not self._has_splits:
            return np.full(batch.num_rows, "train", dtype=object)
        named = batch.column(_SPLIT).cast(pa.string()).to_numpy(zero_copy_only=False)
        for place, name in enumerate(named):
            if name not in SPLITS:
                raise DatasetInvalid(
                    f"row {self._row + place} is of split {name!r}; there are "
                    f"{', '.join(f'`{one}`' for one in SPLITS)}",
                    hint="write one of them into the column `split` of every row",
                    where=_SPLIT,
                )
        return np.asarray(named, dtype=object)

    def _add(self, name: str, column: str, values: Any, splits: NDArray[Any]) -> None:
        for split in SPLITS:
            chosen = splits == split
            if not chosen.any() or (split == "unlabelled" and name.startswith("targets/")):
                continue
            rows = np.flatnonzero(chosen)
            part = values if len(rows) == len(splits) else values.take(pa.array(rows))
            where = f"{split}/{name}"
            if where not in self._spools:
                self._spools[where] = Spool(self._scratch, where, self._budget)
            self._write(self._spools[where], column, part, rows + self._row)

    def _write(self, spool: Spool, column: str, values: Any, rows: NDArray[Any]) -> None:
        _refuse_nulls(column, values, rows)
        if pa.types.is_struct(values.type) and values.type.get_field_index("bytes") >= 0:
            values = values.field("bytes")
            _refuse_nulls(column, values, rows)
        if pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type):
            for row, value in zip(rows, values, strict=True):
                spool.add_file(value.as_py(), f"{column}, row {row}")
        else:
            spool.add(_array(column, values, rows), f"`{column}`, row {rows[0]},")


def _columns(names: list[str], given: dict[str, str], file: str) -> dict[str, str]:
    """Names of columns in the file by input or target."""
    wanted = given or {name: name for name in names if name.startswith(("inputs/", "targets/"))}
    for name, column in wanted.items():
        if column not in names:
            raise DatasetInvalid(
                f"the table has no column `{column}`, which is `{name}`; it has "
                f"{', '.join(f'`{one}`' for one in names)}",
                hint="correct `data.columns` in the recipe",
                where=f"recipe.data.columns.{name}",
            )
    if not any(name.startswith("inputs/") for name in wanted):
        raise DatasetInvalid(
            "no column of the table is an input; it has "
            f"{', '.join(f'`{one}`' for one in names) or 'none'}",
            hint="name columns `inputs/0`, `targets/0`, or say in the recipe which they are: "
            "`data: {columns: {inputs/0: pixels, targets/0: label}}`",
            where=file,
        )
    return wanted


def _refuse_nulls(column: str, values: Any, rows: NDArray[Any]) -> None:
    if values.null_count:
        place = int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0])
        # Items of lists stand in for their rows in equal shares.
        row = rows[place * len(rows) // len(values)]
        raise DatasetInvalid(
            f"column `{column}` has no value in row {row}",
            hint="fill in the value, or leave the row out; rows without targets belong to the "
            "split `unlabelled`",
            where=column,
        )


def _array(column: str, values: Any, rows: NDArray[Any]) -> NDArray[Any]:
    """Numbers [rows, ...]."""
    shape = [len(values)]
    while True:
        if isinstance(values.type, pa.FixedShapeTensorType):
            shape += values.type.shape
            if values.type.permutation not in (None, list(range(len(values.type.shape)))):
                raise _unreadable(column, values.type)
            values = values.storage.flatten()
        elif pa.types.is_fixed_size_list(values.type):
            shape.append(values.type.list_size)
            values = values.flatten()
        elif pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
            lengths = pc.list_value_length(values).to_numpy(zero_copy_only=False)
            odd = np.flatnonzero(lengths != lengths[0])
            if len(odd):
                row = rows[int(odd[0]) * len(rows) // len(values)]
                raise DatasetInvalid(
                    f"column `{column}` has {lengths[odd[0]]} values in row {row}, and "
                    f"{lengths[0]} in row {rows[0]}",
                    hint="every row of a column has as many values; pad or cut them",
                    where=column,
                )
            shape.append(int(lengths[0]))
            values = values.flatten()
        else:
            break
        _refuse_nulls(column, values, rows)
    if not (
        pa.types.is_integer(values.type)
        or pa.types.is_floating(values.type)
        or pa.types.is_boolean(values.type)
    ) or pa.types.is_uint64(values.type):
        raise _unreadable(column, values.type)
    found: NDArray[Any] = values.to_numpy(zero_copy_only=False).reshape(shape)
    return found


def _unreadable(column: str, kind: Any) -> DatasetInvalid:
    return DatasetInvalid(
        f"column `{column}` holds {kind}, which is no number, list of numbers or image",
        hint="convert it, or name other columns in `data.columns` of the recipe",
        where=column,
    )
