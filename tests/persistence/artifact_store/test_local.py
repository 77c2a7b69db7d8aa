"""What only a folder can do to a store."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from persistence.artifact_store import LocalArtifactStore, StoreUnavailable

SHA256 = "0" * 64
FILL = """
import resource, signal, sys
from pathlib import Path
from persistence.artifact_store import LocalArtifactStore, StoreUnavailable
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
store = LocalArtifactStore(Path(sys.argv[1]))
try:
    with store.open_writer() as writer:
        for piece in range(int(sys.argv[2])):
            writer.write(b"x" * 1000)
        writer.commit()
except StoreUnavailable as error:
    print(error.reason)
print(sum(path.is_file() for path in store.root.rglob("*")))
"""


@pytest.mark.parametrize("pieces", [5000, 1049])  # in a write, and in the flush of the commit
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, pieces: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FILL, str(tmp_path / "store"), str(pieces)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    said, left = done.stdout.splitlines()
    assert said == f"the artifact folder cannot be used: {os.strerror(27)}"  # EFBIG, as ENOSPC
    assert left == "0"


def test_a_folder_that_is_gone_holds_no_absent_blobs(tmp_path: Path) -> None:
    store = LocalArtifactStore(tmp_path / "store")
    shutil.rmtree(store.root)
    for ask in (store.exists, store.open, store.path, store.size, store.age_seconds):
        with pytest.raises(StoreUnavailable, match="not there"):
            ask(SHA256)
    for look in (store.check, store.open_writer, lambda: store.remove_abandoned_writes(0)):
        with pytest.raises(StoreUnavailable) as caught:
            look()
        assert "SECATEUR_ARTIFACT_DIR" in caught.value.hint


def test_every_folder_on_the_way_is_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalArtifactStore(tmp_path / "store")
    flushed: list[str] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    with store.open_writer() as writer:
        writer.write(b"data")
        sha256 = writer.commit().sha256
    assert flushed[1:] == [sha256[2:4], sha256[:2], "store"]
    assert len(flushed[0]) == 32  # the temporary file, before it gets its name
