"""The copy that is kept of a model: the same program, in one form."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import pytest
import torch

from service.models.archive_gate import ArchiveRefused, check_archive
from service.models.canonical_archive import ALIGNMENT, ROOT, write_archive
from service.models.program import Record
from service.uploads.zip_check import ZipLimits, checked_zip
from tests.service.conftest import TinyNet, copied, scripted
from tests.service.test_archive_gate import Branches, Entries, rewritten

LIMITS = ZipLimits(entries=1000, ratio=200, unpacked_bytes=2**30)


class Shared(torch.nn.Module):
    """Views of one storage, a dictionary, sizes of nothing, and other types."""

    def __init__(self) -> None:
        super().__init__()
        whole = torch.arange(24.0)
        self.register_buffer("rows", whole.view(4, 6))
        self.register_buffer("columns", whole.view(4, 6).t()[1:3])
        self.register_buffer("none", torch.zeros(0, 3))
        self.register_buffer("wide", torch.ones(1).expand(5, 7))
        self.register_buffer("short", torch.ones(3, dtype=torch.bfloat16))
        self.register_buffer("bits", torch.tensor([True, False]))
        self.register_buffer("bad", torch.tensor([float("nan"), float("inf")]))
        self.names = torch.jit.Attribute({"a": [1, 2], "b": []}, dict[str, list[int]])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.rows.sum() + self.columns.sum() + self.wide.sum() + len(self.names)


def quantized() -> bytes:
    module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LSTM(4, 4))
    return scripted(torch.ao.quantization.quantize_dynamic(module, dtype=torch.qint8))


def traced_with_a_constant() -> bytes:
    table = torch.arange(8.0)
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(lambda x: x + table, torch.zeros(8)), buffer)
    return buffer.getvalue()


MODELS = {
    "layers": lambda: scripted(TinyNet()),
    "branches": lambda: scripted(Branches()),
    "shared": lambda: scripted(Shared()),
    "quantized": quantized,
    "constant": traced_with_a_constant,
    "gelu": lambda: scripted(torch.nn.Sequential(torch.nn.GELU())),
}


def state(module: torch.jit.ScriptModule) -> dict[str, tuple[object, ...]]:
    return {
        name: (value.dtype, value.shape, value.stride(), value.storage_offset(), bytes_of(value))
        for name, value in (*module.named_parameters(), *module.named_buffers())
    }


def bytes_of(value: torch.Tensor) -> bytes:
    return value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("kind", MODELS)
def test_a_copy_is_the_same_model_and_its_own_copy(tmp_path: Path, kind: str) -> None:
    upload = MODELS[kind]()
    copy = copied(upload, tmp_path)
    assert copied(copy, tmp_path) == copy
    before = torch.jit.load(io.BytesIO(upload))
    after = torch.jit.load(io.BytesIO(copy))
    assert state(before) == state(after)
    with zipfile.ZipFile(io.BytesIO(upload)) as old, zipfile.ZipFile(io.BytesIO(copy)) as new:
        assert new.testzip() is None
        code = {n.split("/", 1)[1]: old.read(n) for n in old.namelist() if n.endswith(".py")}
        assert code == {
            n.split("/", 1)[1]: new.read(n) for n in new.namelist() if n.endswith(".py")
        }


def test_the_form_of_a_copy(tmp_path: Path) -> None:
    copy = copied(scripted(Branches()), tmp_path)
    with zipfile.ZipFile(io.BytesIO(copy)) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        assert not archive.comment
    assert names[:4] == [
        f"{ROOT}/version", f"{ROOT}/byteorder", f"{ROOT}/constants.pkl", f"{ROOT}/data.pkl"
    ]  # fmt: skip
    assert not any("serialization_id" in name for name in names)
    weights = [name for name in names if name.startswith(f"{ROOT}/data/")]
    assert weights == [f"{ROOT}/data/{n}" for n in range(11)] == names[-11:]
    for entry in entries:
        assert entry.compress_type == zipfile.ZIP_STORED
        assert entry.date_time == (1980, 1, 1, 0, 0, 0)
        assert (entry.flag_bits, entry.extra, entry.comment, entry.external_attr) == (
            0,
            b"",
            b"",
            0,
        )
        name, extra = struct.unpack_from("<HH", copy, entry.header_offset + 26)
        assert (entry.header_offset + 30 + name + extra) % ALIGNMENT == 0


def test_how_an_archive_was_written_makes_no_difference(tmp_path: Path) -> None:
    upload = scripted(TinyNet())
    copy = copied(upload, tmp_path)

    def renamed(entries: Entries) -> Entries:
        return [(name.replace("archive/", "other/"), data) for name, data in reversed(entries)]

    assert copied(rewritten(upload, renamed), tmp_path) == copy
    assert copied(rewritten(upload, renamed, compression=zipfile.ZIP_DEFLATED), tmp_path) == copy


def test_what_is_no_part_of_the_program_is_left_out(tmp_path: Path) -> None:
    upload = scripted(TinyNet())

    def stuffed(entries: Entries) -> Entries:
        extra = ["extra/notes.txt", "bytecode.pkl", "data/99", "model.json", "code/x.so", "a/b/c"]
        return [*entries, *((f"archive/{name}", b"anything") for name in extra)]

    assert copied(rewritten(upload, stuffed), tmp_path) == copied(upload, tmp_path)


def test_a_damaged_weight_is_found_while_it_is_copied(tmp_path: Path) -> None:
    upload = scripted(TinyNet())
    with zipfile.ZipFile(io.BytesIO(upload)) as archive:
        weights = archive.read("archive/data/0")
    damaged = bytearray(upload)
    damaged[upload.index(weights)] ^= 1
    path = tmp_path / "damaged.pt"
    path.write_bytes(damaged)
    with pytest.raises(ArchiveRefused, match="`archive/data/0` is damaged"):
        check_archive(path, LIMITS, bytearray().extend)


def test_large_records_have_their_sizes_in_64_bits(tmp_path: Path) -> None:
    """The limit is lowered, so that what takes 4 GiB takes 100 bytes."""
    plain, large = tmp_path / "plain.zip", tmp_path / "large.zip"
    records = [
        Record("version", b"3\n"),
        Record("small", b"x" * 9),
        Record("big", b"y" * 300),
        Record("late", b"z"),
    ]
    with zipfile.ZipFile(plain, "w") as archive:
        archive.writestr("a/b", b"x" * 500)
    with zipfile.ZipFile(plain) as archive:
        [entry] = archive.infolist()
        out = bytearray()
        write_archive(archive, [*records, Record("copied", entry)], out.extend, max32=100)
    large.write_bytes(out)
    with checked_zip(large, LIMITS) as archive:
        assert archive.testzip() is None
        found = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    assert found == {
        f"{ROOT}/version": b"3\n",
        f"{ROOT}/small": b"x" * 9,
        f"{ROOT}/big": b"y" * 300,
        f"{ROOT}/late": b"z",
        f"{ROOT}/copied": b"x" * 500,
    }
    reader = torch._C.PyTorchFileReader(str(large))
    assert reader.get_record("big") == b"y" * 300
    assert reader.get_record("copied") == b"x" * 500
