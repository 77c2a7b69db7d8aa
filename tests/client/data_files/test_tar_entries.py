from __future__ import annotations

import contextlib
import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from secateur.data_files.faults import DataFault
from secateur.data_files.tar_entries import looks_like_tar, tar_entries


def written(entries, form=tarfile.PAX_FORMAT):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for entry, data in entries:
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def regular(name, data=b"data", **fields):
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    for field, value in fields.items():
        setattr(entry, field, value)
    return entry, data


def read(data, start=0):
    file = io.BytesIO(data)
    return [
        (entry.name, data[entry.offset : entry.offset + entry.size])
        for entry in tar_entries(file, start=start, end=len(data), name="data.tar")
    ]


names = st.text(st.characters(codec="utf-8", exclude_characters="\\/\0"), min_size=1, max_size=150)


@given(
    st.dictionaries(
        names.filter(lambda name: name.isprintable() and name not in (".", "..")),
        st.binary(max_size=1100),
        max_size=4,
    ),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
def test_it_reads_what_the_standard_library_writes(files, form):
    data = written([regular(f"train/{name}", content) for name, content in files.items()], form)
    assert read(data) == [(f"train/{name}", content) for name, content in files.items()]
    assert looks_like_tar(io.BytesIO(data)) == bool(files)


def test_a_tar_inside_of_a_file_is_read_where_it_lies():
    inner = written([regular("a.png", b"inner")])
    outer = written([regular("train/0.tar", inner)])
    (entry,) = tar_entries(io.BytesIO(outer), start=0, end=len(outer), name="outer")
    end = entry.offset + entry.size
    (found,) = tar_entries(io.BytesIO(outer), start=entry.offset, end=end, name="inner")
    assert outer[found.offset : found.offset + found.size] == b"inner"


def test_folders_are_told_apart():
    data = written([regular("./train", b"", type=tarfile.DIRTYPE), regular("./train/a")])
    folders = []
    file = io.BytesIO(data)
    found = list(tar_entries(file, start=0, end=len(data), name="t", folders=folders))
    assert [entry.name for entry in found] == ["train/a"]
    assert folders == ["train/"]


def refused(data):
    with pytest.raises(DataFault) as caught:
        read(data)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (regular("link", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "no regular file"),
        (regular("link", b"", type=tarfile.LNKTYPE, linkname="a"), "no regular file"),
        (regular("dev", b"", type=tarfile.BLKTYPE), "no regular file"),
        (regular("pipe", b"", type=tarfile.FIFOTYPE), "no regular file"),
        (regular("sparse", b"", type=tarfile.GNUTYPE_SPARSE), "no regular file"),
        (regular("s", pax_headers={"GNU.sparse.major": "1"}), "no regular file"),
        (regular("../up"), "outside"),
        (regular("/etc/passwd"), "outside"),
        (regular("a\\b"), "outside"),
        (regular("a\nb"), "outside"),
        (regular("a", pax_headers={"comment": "x" * 100_000}), "header of"),
        (regular("a", pax_headers={"path": "../../up"}), "outside"),
    ],
)
def test_what_no_dataset_needs_is_refused(entry, says):
    assert says in str(refused(written([entry])))


def test_damage_is_refused_and_not_skipped():
    data = written([regular("a", b"1" * 600), regular("b", b"2" * 600)])
    assert "cut off" in str(refused(data[:700]))
    broken = bytearray(data)
    broken[1536 + 3] ^= 1  # in the second header
    assert "begins no file" in str(refused(bytes(broken)))
    lying = bytearray(data)
    lying[124:136] = b"77777777777\0"
    lying[148:156] = b"%06o\0 " % (sum(lying[:148]) + 256 + sum(lying[156:512]))
    assert "cut off" in str(refused(bytes(lying)))


@given(st.binary(max_size=1600))
def test_any_bytes_are_read_or_refused(data):
    with contextlib.suppress(DataFault):  # anything else would be a bug
        assert all(len(content) <= len(data) for _, content in read(data))
