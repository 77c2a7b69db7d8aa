from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from secateur import transport
from secateur.discovery import Endpoint
from secateur.errors import ApiError, DownloadCorrupt, ServerUnreachable
from secateur.transfer import content_digest, download, file_sha256, read_chunks
from secateur.transport import ATTEMPTS, Transport

from tests.client.faulty_server import Answer, Handler, refuse, serving

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "FIRST_PAUSE", 0.001)


def content(cut: int | None = None, body: bytes = CONTENT, ranges: bool = True) -> Answer:
    """Send the content from where the request's Range starts; hang up after `cut` bytes."""

    def send(handler: Handler) -> None:
        asked = handler.headers.get("Range", "") if ranges else ""
        start = int(asked.removeprefix("bytes=").rstrip("-") or 0)
        handler.send(206 if asked else 200, body[start:], cut=cut)

    return send


def fetch(url: str, target: Path) -> Path:
    return download(
        Transport(Endpoint(url, None)), "/file", target, sha256=SHA256, size=len(CONTENT)
    )


def test_a_broken_download_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with serving(content(cut=1000), content(cut=500), content()) as server:
        assert fetch(server.url, tmp_path / "a.pt").read_bytes() == CONTENT
    ranges = [seen.headers.get("Range") for seen in server.requests]
    assert ranges == [None, "bytes=1000-", "bytes=1500-"]
    conditions = [seen.headers.get("If-Range") for seen in server.requests]
    assert conditions == [None, f'"{SHA256}"', f'"{SHA256}"']
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_progress_counts_as_success_however_often_it_breaks(tmp_path: Path) -> None:
    pieces = [content(cut=1000)] * (ATTEMPTS * 2)
    with serving(*pieces, content()) as server:
        assert fetch(server.url, tmp_path / "a.pt").read_bytes() == CONTENT


def test_a_server_without_ranges_sends_all_again(tmp_path: Path) -> None:
    with serving(content(cut=1000), content(ranges=False)) as server:
        assert fetch(server.url, tmp_path / "a.pt").read_bytes() == CONTENT


def test_a_download_resumes_in_a_later_run(tmp_path: Path) -> None:
    gone = refuse(404)
    with serving(content(cut=1000), gone) as server, pytest.raises(ApiError):
        fetch(server.url, tmp_path / "a.pt")
    assert not (tmp_path / "a.pt").exists()
    with serving(content()) as server:
        fetch(server.url, tmp_path / "a.pt")
    assert server.requests[0].headers["Range"] == "bytes=1000-"


def test_wrong_bytes_are_never_kept(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"earlier")
    wrong = CONTENT[:-1] + b"!"
    with serving(content(body=wrong)) as server, pytest.raises(DownloadCorrupt):
        fetch(server.url, tmp_path / "a.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]
    assert (tmp_path / "a.pt").read_bytes() == b"earlier"


def test_attempts_without_progress_are_bounded(tmp_path: Path) -> None:
    with serving(content(cut=0)) as server, pytest.raises(ServerUnreachable):
        fetch(server.url, tmp_path / "a.pt")
    assert len(server.requests) == ATTEMPTS


def test_an_empty_file_arrives(tmp_path: Path) -> None:
    with serving(lambda handler: handler.send(200)) as server:
        download(
            Transport(Endpoint(server.url, None)), "/file", tmp_path / "empty",
            sha256=hashlib.sha256().hexdigest(), size=0,
        )  # fmt: skip
    assert (tmp_path / "empty").read_bytes() == b""


def test_upload_pieces_and_digest(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(CONTENT)
    seen: list[tuple[int, int]] = []
    assert b"".join(read_chunks(file, lambda *done: seen.append(done))) == CONTENT
    assert seen == [(0, len(CONTENT)), (len(CONTENT), len(CONTENT))]
    assert file_sha256(file) == SHA256
    # RFC 9530, section 5: the digest of the empty content.
    empty = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    assert content_digest(hashlib.sha256().hexdigest()) == f"sha-256=:{empty}:"
