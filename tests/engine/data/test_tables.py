from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from secateur.recipe_data import Data

from engine.data import spool
from engine.data.opening import open_dataset
from engine.errors import DatasetInvalid
from tests.engine.data.files import png

PIXELS = np.arange(60, dtype=np.float32).reshape(10, 6)
SPLITS = ["train"] * 7 + ["validation"] * 3


def written(path, columns):
    table = pa.table(columns)
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=3)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=4)
    return path


def opened(path, **data):
    return open_dataset(
        path, ["x", "y"], data=Data.model_validate(data), scratch=path.parent / f"{path.name}.d"
    )


def rows_of(array, kind=None):
    return pa.array(array.tolist(), kind)


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_lists_of_one_length_and_numbers(tmp_path, suffix):
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(PIXELS.reshape(-1)), 6)
    nested = rows_of(PIXELS.reshape(10, 2, 3), pa.list_(pa.list_(pa.float32())))
    path = written(
        tmp_path / f"data.{suffix}",
        {
            "inputs/0": fixed,
            "inputs/1": nested,
            "targets/0": pa.array(range(10)),
            "targets/1": pa.array(np.arange(10) / 4),
            "split": SPLITS,
            "comment": ["x"] * 10,
        },
    )
    dataset = opened(path)
    (first, second), targets, _ = dataset.train.rows(torch.tensor([6, 0]))
    assert torch.equal(first, torch.from_numpy(PIXELS)[[6, 0]])
    assert torch.equal(second, torch.from_numpy(PIXELS).reshape(10, 2, 3)[[6, 0]])
    assert targets[0].tolist() == [6, 0]
    assert targets[1].tolist() == [1.5, 0.0]
    assert dataset.validation.span(0, 3)[1][0].tolist() == [7, 8, 9]


def test_columns_named_in_the_recipe_tensors_and_images(tmp_path):
    tensor = pa.FixedShapeTensorArray.from_numpy_ndarray(PIXELS.reshape(10, 3, 2).copy())
    path = written(
        tmp_path / "data.parquet",
        {
            "matrix": tensor,
            "image": [{"bytes": png(number), "path": f"{number}.png"} for number in range(10)],
            "raw": [png(number, mode="RGB") for number in range(10)],
            "label": pa.array(range(10), pa.uint16()),
        },
    )
    dataset = opened(path, columns={"inputs/0": "matrix", "targets/0": "label"})
    (inputs,), targets, _ = dataset.train.span(0, 10)
    assert torch.equal(inputs, torch.from_numpy(PIXELS).reshape(10, 3, 2))
    assert targets.dtype == torch.int32
    dataset = opened(path, columns={"inputs/0": "image", "inputs/1": "raw", "targets/0": "label"})
    (gray, colour), _, _ = dataset.train.span(0, 10)
    assert (gray[:, 0, 0, 0] * 255).round().tolist() == list(range(10))
    assert colour.shape == (10, 3, 4, 4)


def refused(path, **data):
    with pytest.raises(DatasetInvalid) as caught:
        opened(path, **data)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("columns", "where", "says"),
    [
        ({"x": [1, 2]}, "data.parquet", "no column of the table is an input"),
        ({"inputs/0": [1.0, None]}, "inputs/0", "no value in row 1"),
        ({"inputs/0": [[1.0, 2], [3.0, None]]}, "inputs/0", "no value in row 1"),
        ({"inputs/0": [[1.0, 2], [3.0]]}, "inputs/0", "1 values in row 1, and 2 in row 0"),
        ({"inputs/0": ["a", "b"]}, "inputs/0", "holds string"),
        ({"inputs/0": [1, 2], "split": ["train", "test"]}, "split", "row 1 is of split 'test'"),
        ({"inputs/0": [1, 2], "split": ["train", None]}, "split", "row 1 is of split None"),
        ({"inputs/0": [b"a", b"b"]}, "inputs/0, row 0", "not a readable PNG"),
    ],
)
def test_columns_that_hold_no_samples_are_named(tmp_path, columns, where, says):
    error = refused(written(tmp_path / "data.parquet", columns))
    assert error.where == where
    assert says in error.title


def test_a_column_of_the_recipe_that_is_not_there(tmp_path):
    path = written(tmp_path / "data.parquet", {"a": [1]})
    error = refused(path, columns={"inputs/0": "b"})
    assert error.where == "recipe.data.columns.inputs/0"
    assert "it has `a`" in error.title


def test_rows_without_targets_belong_to_unlabelled(tmp_path):
    path = written(
        tmp_path / "data.parquet",
        {
            "inputs/0": [1.0, 2.0, 3.0],
            "targets/0": [5, 6, 0],
            "split": ["train", "train", "unlabelled"],
        },
    )
    dataset = opened(path)
    assert dataset.unlabelled.samples == 1
    assert dataset.unlabelled.targets is None
    assert dataset.train.span(0, 2)[1].tolist() == [5, 6]


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_damaged_files(tmp_path, suffix):
    path = written(tmp_path / f"data.{suffix}", {"inputs/0": [1.0] * 100})
    path.write_bytes(path.read_bytes()[:-30])
    assert f"not a readable {suffix}" in refused(path).title


def test_a_small_file_may_not_fill_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(spool, "ALWAYS_ALLOWED", 0)
    path = tmp_path / "data.parquet"
    pq.write_table(pa.table({"inputs/0": np.zeros(1_000_000)}), path)
    assert path.stat().st_size < 40_000  # of 8 MB
    assert "more than 200 times" in refused(path).title
