"""Archives without source tables: the same program, whatever its past, in the same bytes."""

from __future__ import annotations

import io
import zipfile

import torch
from torch import nn

from engine.torchscript.program import Program
from engine.torchscript.slim_archive import slim, slimmed
from tests.engine.digits import save_scripted

X = torch.linspace(-1, 1, 36).reshape(1, 1, 6, 6)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.register_buffer("table", torch.arange(4))

    def forward(self, x):
        return self.norm(self.conv(x)).relu().flatten(1) + self.table.sum()


def saved(tmp_path):
    torch.manual_seed(0)
    return save_scripted(Net().eval(), tmp_path / "net.pt")


def entries(path):
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None
        return {one.filename: (one, file.read(one)) for one in file.infolist()}


def test_it_is_the_same_but_for_the_tables(tmp_path):
    path = saved(tmp_path)
    before, expected = entries(path), torch.jit.load(str(path))(X)
    slim(path)
    after = entries(path)
    gone = before.keys() - after.keys()
    assert gone
    assert all(name.endswith(".debug_pkl") for name in gone)
    assert after.keys() <= before.keys()
    for name, (_, data) in after.items():
        assert data == before[name][1] or name.endswith("serialization_id")
    assert torch.equal(torch.jit.load(str(path))(X), expected)
    assert torch.equal(torch.jit.load(str(path), _restore_shapes=True)(X), expected)
    assert path.read_bytes() == slimmed(path.read_bytes()), "twice is once"


def test_tensors_stay_where_a_runtime_can_map_them(tmp_path):
    path = saved(tmp_path)
    slim(path)
    content = path.read_bytes()
    for name, (entry, data) in entries(path).items():
        if "/data/" not in name or not data:
            continue
        header = entry.header_offset
        lengths = content[header + 26 : header + 30]
        start = header + 30 + int.from_bytes(lengths[:2], "little")
        start += int.from_bytes(lengths[2:], "little")
        assert content[start : start + len(data)] == data
        assert start % 64 == 0, name


def test_the_past_of_a_program_is_not_in_its_file(tmp_path):
    """One program is written as it came, the other one after it was written and read."""
    at_once = Program.load(saved(tmp_path))
    at_once.save(tmp_path / "once.pt")
    Program.load(tmp_path / "once.pt").save(tmp_path / "twice.pt")
    assert (tmp_path / "once.pt").read_bytes() == (tmp_path / "twice.pt").read_bytes()


def test_an_archive_in_memory_is_slimmed_alike(tmp_path):
    path = saved(tmp_path)
    whole = path.read_bytes()
    slim(path)
    assert slimmed(whole) == path.read_bytes()
    assert torch.equal(
        torch.jit.load(io.BytesIO(slimmed(whole)))(X), torch.jit.load(io.BytesIO(whole))(X)
    )
