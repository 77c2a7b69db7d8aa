"""What a full disk says is told from other errors, and waited for."""

from __future__ import annotations

import errno
from contextlib import ExitStack
from pathlib import Path

import pytest

from persistence.artifact_store import StoreUnavailable
from tests.faults.disk import small_disk
from workers.room import disk_is_full, lacks_room, room_as_outage


def write_to_a_full_device() -> None:
    with Path("/dev/full").open("wb", buffering=0) as device:
        device.write(b"x")


def test_a_full_device_is_an_outage_and_other_errors_are_not(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space") as caught:
        write_to_a_full_device()
    assert lacks_room(caught.value)
    with pytest.raises(StoreUnavailable) as away, room_as_outage("it is full"):
        write_to_a_full_device()
    assert (away.value.reason, away.value.errno) == ("it is full", errno.ENOSPC)
    with pytest.raises(FileNotFoundError) as absent, room_as_outage("it is full"):
        (tmp_path / "none").open()
    assert not lacks_room(absent.value)
    with pytest.raises(StoreUnavailable) as passed, room_as_outage("it is full"):
        raise StoreUnavailable("another reason")
    assert passed.value.reason == "another reason"


def test_a_disk_is_full_until_there_is_room(tmp_path: Path) -> None:
    with ExitStack() as stack:
        try:
            disk = stack.enter_context(small_disk(tmp_path / "disk", size="8m"))
        except RuntimeError as refusal:
            pytest.skip(str(refusal))
        assert not disk_is_full(disk.root)
        disk.fill()
        assert disk_is_full(disk.root)
        with pytest.raises(OSError, match="No space"):
            (disk.root / "more").write_bytes(b"x" * 4096)
        disk.empty()
        assert not disk_is_full(disk.root)
