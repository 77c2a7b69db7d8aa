from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
import torch

from engine.data.columns import rows_of
from engine.data.mapped import MappedRows
from engine.data.npz_file import read_npz
from engine.errors import DatasetInvalid

ARRAY = np.arange(60, dtype=np.float64).reshape(10, 3, 2)


def zipped(path, pad, method=zipfile.ZIP_STORED):
    """One array, its bytes moved along by an entry of `pad` bytes before it."""
    data = io.BytesIO()
    np.save(data, ARRAY)
    with zipfile.ZipFile(path, "w", method) as archive:
        first = io.BytesIO()
        np.save(first, np.zeros(pad, np.uint8))
        archive.writestr("train/inputs/pad.npy", first.getvalue(), zipfile.ZIP_STORED)
        archive.writestr("train/inputs/0.npy", data.getvalue())
    return path


@pytest.mark.parametrize("pad", range(9))
def test_stored_arrays_are_mapped_wherever_they_begin(tmp_path, pad):
    columns = read_npz(zipped(tmp_path / "a.npz", pad), None)
    column = columns["train/inputs/0"]
    rows = torch.tensor([9, 0, 4])
    assert torch.equal(rows_of(column, rows), torch.from_numpy(ARRAY)[rows])
    assert column.dtype == torch.float64
    # Aligned or not, one of the two; nothing is read ahead of time.
    assert isinstance(column, torch.Tensor | MappedRows)


def test_both_ways_of_mapping_occur(tmp_path):
    kinds = {
        type(read_npz(zipped(tmp_path / f"{pad}.npz", pad), None)["train/inputs/0"])
        for pad in range(9)
    }
    assert kinds == {torch.Tensor, MappedRows}


def test_compressed_arrays_are_unpacked_into_the_scratch_folder(tmp_path):
    path, scratch = tmp_path / "a.npz", tmp_path / "scratch"
    np.savez_compressed(path, **{"train/inputs/0": ARRAY, "train/targets/0": np.arange(10)})
    columns = read_npz(path, scratch)
    assert torch.equal(columns["train/inputs/0"], torch.from_numpy(ARRAY))
    assert sorted(file.stat().st_size for file in scratch.iterdir()) == [80, 480]


def test_fortran_order_and_scalars(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, **{"train/inputs/0": np.asfortranarray(ARRAY), "train/inputs/1": np.float32(3)})
    columns = read_npz(path, None)
    rows = torch.arange(10)
    assert torch.equal(rows_of(columns["train/inputs/0"], rows), torch.from_numpy(ARRAY))
    assert columns["train/inputs/1"].shape == ()


def test_no_room_to_unpack(tmp_path, monkeypatch):
    path, scratch = tmp_path / "a.npz", tmp_path / "scratch"
    np.savez_compressed(path, **{"train/inputs/0": ARRAY})
    real = zipfile.ZipExtFile.read

    def full(self, n=-1):
        if n == 1 << 20:
            raise OSError(28, "No space left on device")
        return real(self, n)

    monkeypatch.setattr(zipfile.ZipExtFile, "read", full)
    with pytest.raises(DatasetInvalid, match="no room to unpack") as caught:
        read_npz(path, scratch)
    assert caught.value.where == "train/inputs/0"
    assert not list(scratch.iterdir())
