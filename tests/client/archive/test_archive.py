"""Whole archives: round trips with torch, damage, attacks, files that are in the way."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zipfile
from importlib.resources import files
from io import BytesIO
from pathlib import Path

import pytest
import torch
from secateur.archive import (
    ArchiveDamaged,
    ArchiveTooLarge,
    PackedIndices,
    check,
    content_key,
    pack,
    unpack,
)
from secateur.archive.coders import compress
from secateur.archive.container import START_BYTES, Entry, Start, index_of
from secateur.archive.torchscript_zip import TorchScriptZip
from secateur.errors import SecateurError
from secateur.files import FileExists

from service.models.archive_gate import check_archive
from service.uploads.zip_check import ZipLimits
from tests.client.archive.models import write_model

IN_NO_TORCH = """
import sys
sys.modules["torch"] = None
from pathlib import Path
from secateur.archive import unpack
unpack(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model.pt`, its archive, and what comes out of that."""
    folder = tmp_path_factory.mktemp("archive")
    pack(write_model(folder / "model.pt"), folder / "model.secateur")
    unpack(folder / "model.secateur", folder / "unpacked.pt")
    return folder


def records(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def test_every_record_comes_back(folder: Path) -> None:
    before, after = records(folder / "model.pt"), records(folder / "unpacked.pt")

    left_out = before.keys() - after.keys()
    assert after == {name: before[name] for name in before if name not in left_out}
    assert all(name.endswith((".debug_pkl", "serialization_id")) for name in left_out)
    assert any(name.startswith("code/") for name in after)


def test_torch_runs_what_comes_out(folder: Path) -> None:
    x = torch.randn(3, 80)

    model, unpacked = (torch.jit.load(folder / name) for name in ("model.pt", "unpacked.pt"))

    assert torch.equal(model(x), unpacked(x))


def test_it_is_unpacked_without_torch(folder: Path, tmp_path: Path) -> None:
    archive, target = folder / "model.secateur", tmp_path / "model.pt"

    subprocess.run([sys.executable, "-c", IN_NO_TORCH, archive, target], check=True, timeout=60)

    assert target.read_bytes() == (folder / "unpacked.pt").read_bytes()


def test_what_came_out_of_an_archive_comes_out_of_its_own_the_same(
    folder: Path, tmp_path: Path
) -> None:
    again = pack(folder / "unpacked.pt", tmp_path / "again.secateur")

    assert (tmp_path / "again.secateur").read_bytes() == (folder / "model.secateur").read_bytes()
    assert again.unpacked_sha256 == content_key((folder / "unpacked.pt").read_bytes())
    assert again.unpacked_size == (folder / "unpacked.pt").stat().st_size
    assert again.size == (folder / "model.secateur").stat().st_size


def test_shared_weights_are_found_and_the_file_is_small(folder: Path, tmp_path: Path) -> None:
    packed = pack(folder / "model.pt", tmp_path / "model.secateur")

    chosen = {size: (coder, cost) for coder, size, cost in packed.coders.values()}
    assert chosen[6400 * 4][0] == "words"
    assert chosen[6400 * 4][1] < 600  # the entropy is 564
    assert chosen[80 * 20 * 4][0] == "shuffled"
    # What is not weights: names, code and the SHA-256.
    assert packed.size < sum(cost for _, cost in chosen.values()) + 1200


def test_what_is_known_of_indices_is_used(folder: Path, tmp_path: Path) -> None:
    """3,000 random bytes say nothing; 4,000 indices of 6 bits of which half are zero do."""
    codes = torch.cat([torch.zeros(2000), torch.randint(0, 64, (2000,))]).to(torch.uint8)
    from engine.quantisation.index_packing import pack as pack_indices  # noqa: PLC0415

    stored = pack_indices(codes[torch.randperm(4000)], 6)
    model = torch.jit.load(folder / "model.pt")
    model.codes.copy_(stored)
    model.save(tmp_path / "model.pt")
    key = content_key(stored.numpy().tobytes())

    plain = pack(tmp_path / "model.pt", tmp_path / "plain.secateur")
    known = pack(
        tmp_path / "model.pt",
        tmp_path / "known.secateur",
        indices={key: PackedIndices(count=4000, width=6)},
    )

    assert ("indices", 3000) in {(coder, size) for coder, size, _ in known.coders.values()}
    assert known.size < plain.size - 200
    assert known.unpacked_sha256 == plain.unpacked_sha256


def test_alignment_and_the_gate_of_uploads(folder: Path) -> None:
    check_archive(folder / "unpacked.pt", ZipLimits(100, 100.0, 10**8))
    data = (folder / "unpacked.pt").read_bytes()
    with zipfile.ZipFile(folder / "unpacked.pt") as archive:
        for item in archive.infolist():
            assert item.compress_type == zipfile.ZIP_STORED
            name, extra = struct.unpack("<2H", data[item.header_offset + 26 :][:4])
            assert (item.header_offset + 30 + name + extra) % 64 == 0


@pytest.mark.parametrize("large", [1, 3000])
def test_large_files_have_64_bit_records(folder: Path, large: int) -> None:
    """The same records, with fewer bytes called large: as a file beyond 4 GiB has them."""
    sink = BytesIO()
    zipped = TorchScriptZip(sink, large=large)
    for name, content in records(folder / "unpacked.pt").items():
        zipped.add(name, content)
    zipped.close()

    with zipfile.ZipFile(sink) as archive:
        assert archive.testzip() is None
    model = torch.jit.load(BytesIO(sink.getvalue()))
    assert torch.equal(model.shared, torch.jit.load(folder / "model.pt").shared)


def test_the_form_of_the_file_does_not_change() -> None:
    """Archives written long ago must find it as it was."""
    sink = BytesIO()
    zipped = TorchScriptZip(sink)
    zipped.add("data/0", bytes(range(100)))
    zipped.add("code/__torch__.py", "π = 3\n".encode())
    zipped.close()

    assert content_key(sink.getvalue()) == (
        "9dd2dbb49d51ce5219c8e9ff16aa20029687b822150de6b9ded13db1cdef3b5e"
    )


def test_the_dictionary_does_not_change() -> None:
    data = files("secateur.archive").joinpath("common.bin").read_bytes()

    assert content_key(data) == ("b596436d078046b188e7297b89cf5c9b42f476ac981b5d714cac8f6b6b2ae2ff")


def broken(folder: Path, data: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "broken.secateur"
    path.write_bytes(data)
    return path


def test_every_cut_is_noticed(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "model.secateur").read_bytes()
    for length in [*range(0, 160, 9), *range(160, len(whole), len(whole) // 20), len(whole) - 1]:
        with pytest.raises(ArchiveDamaged):
            unpack(broken(folder, whole[:length], tmp_path), tmp_path / "out.pt")
    assert not (tmp_path / "out.pt").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"broken.secateur"}


def test_a_flipped_bit_never_gives_another_file(folder: Path, tmp_path: Path) -> None:
    """zstd has a few bits that mean nothing; every other one is noticed."""
    whole = (folder / "model.secateur").read_bytes()
    right = content_key((folder / "unpacked.pt").read_bytes())
    places = [*range(0, START_BYTES + 20, 4), *range(START_BYTES, len(whole), len(whole) // 12)]
    noticed = 0
    for place in places:
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        try:
            check(broken(folder, bytes(changed), tmp_path), limit=10**6)
        except (ArchiveDamaged, ArchiveTooLarge):
            noticed += 1
        else:
            assert Start.from_bytes(changed).sha256.hex() == right
    assert noticed >= len(places) - 3


def test_bytes_behind_its_end_are_noticed(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "model.secateur").read_bytes()

    with pytest.raises(ArchiveDamaged, match=f"{len(whole)} belong to it"):
        check(broken(folder, whole + b"\0", tmp_path))


def test_a_limit_holds_before_anything_is_unpacked(folder: Path, tmp_path: Path) -> None:
    size = (folder / "unpacked.pt").stat().st_size
    start = Start.from_bytes((folder / "model.secateur").read_bytes())
    # The rest is no zstd frame: it was not looked at.
    huge = Start(start.sha256, 1 << 60, (10, 1 << 20), (10, 10)).to_bytes() + b"\0" * 20

    with pytest.raises(ArchiveTooLarge, match=f"{size} bytes, and {size - 1} are allowed"):
        unpack(folder / "model.secateur", tmp_path / "out.pt", limit=size - 1)
    with pytest.raises(ArchiveTooLarge):
        check(broken(folder, huge, tmp_path))
    assert not (tmp_path / "out.pt").exists()


def forged(entries: list[Entry] | bytes, heads: bytes = b"", size: int = 10**6) -> bytes:
    """An archive with a right header over a wrong index."""
    index = entries if isinstance(entries, bytes) else index_of(entries)
    frames = [compress(index, text=True), compress(heads)]
    lengths = [(len(frames[0]), len(index)), (len(frames[1]), len(heads))]
    return Start(bytes(32), size, *lengths).to_bytes() + b"".join(frames)


def listed(*items: object) -> bytes:
    text = json.dumps(items).encode()
    return struct.pack("<L", len(text)) + text


WHAT_IS_WRONG = {
    "an index bomb": (Start(bytes(32), 10, (10, 1 << 30), (10, 10)).to_bytes(), "index is larger"),
    "records beyond the file": (forged([Entry("data/0", 1 << 40, "zstd", (), 0, ())]), "larger"),
    "all zeros for nothing": (
        forged([Entry("data/0", 900_000, "words", (1, 1, 0), 2, (0,))], b"\0\0"), "SHA-256"),
    "a path out of the file": (forged([Entry("../x", 0, "index", (), 0, ())]), "outside"),
    "an absolute path": (forged([Entry("/etc/x", 0, "index", (), 0, ())]), "outside"),
    "the same name twice": (forged([Entry("a", 0, "index", (), 0, ())] * 2), "twice"),
    "no list": (forged(listed()[:4] + b"{}"), "no list"),
    "nesting": (forged(struct.pack("<L", 200_000) + b"[" * 200_000), "cannot be read"),
    "another form": (forged(listed(["data/0", 3])), "another form"),
    "no name": (forged(listed([1, 2, "zstd", [], 0, []])), "without a name"),
    "a negative length": (forged(listed(["a", -2, "zstd", [], 0, []])), "lengths that are none"),
    "a huge length": (forged(listed(["a", 1 << 70, "zstd", [], 0, []])), "lengths that are none"),
    "a length that is no number": (forged(listed(["a", True, "zstd", [], 0, []])), "are none"),
    "an unknown coder": (forged([Entry("a", 3, "lzw", (), 0, ())]), "no coder is called"),
    "another version": (b"SECATEUR\x02\x00" + bytes(100), "version 2 of the format"),
    "something else": (b"PK\x03\x04" + bytes(100), "does not start like one"),
}  # fmt: skip


@pytest.mark.parametrize("attack", WHAT_IS_WRONG)
def test_forged_archives_are_refused(attack: str, folder: Path, tmp_path: Path) -> None:
    data, reason = WHAT_IS_WRONG[attack]

    with pytest.raises(ArchiveDamaged, match=reason) as caught:
        check(broken(folder, data, tmp_path))
    assert "broken.secateur" in caught.value.title


def test_a_file_that_is_there_stays(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "model.pt"
    target.write_bytes(b"mine")

    with pytest.raises(FileExists, match=r"model\.pt exists"):
        unpack(folder / "model.secateur", target)
    assert target.read_bytes() == b"mine"

    unpack(folder / "model.secateur", target, overwrite=True)
    assert target.read_bytes() == (folder / "unpacked.pt").read_bytes()


def test_a_link_that_leads_nowhere_stays(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model.pt").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(FileExists):
        unpack(folder / "model.secateur", tmp_path / "model.pt")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("content", [b"", b"no zip at all", b"PK\x03\x04 cut off"])
def test_what_is_no_torchscript_is_not_packed(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(content)

    with pytest.raises(SecateurError, match="is no TorchScript file"):
        pack(tmp_path / "model.pt", tmp_path / "model.secateur")
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SecateurError, match="nothing"):
        pack(tmp_path / "nothing.pt", tmp_path / "model.secateur")
    with pytest.raises(SecateurError, match="nothing"):
        unpack(tmp_path / "nothing.secateur", tmp_path / "model.pt")
    with pytest.raises(SecateurError, match="cannot write"):
        pack(tmp_path / "nothing.pt", tmp_path / "no" / "folder.secateur")
