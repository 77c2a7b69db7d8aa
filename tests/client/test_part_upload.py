"""Large files in parts against a real server, over connections that break."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

import httpx
import numpy as np
import pytest
from safetensors.numpy import save_file
from secateur import part_upload, transport
from secateur.cli.console import err
from secateur.cli.progress import ProgressDisplay
from secateur.cli.uploads import shown_upload
from secateur.cli.uploads import upload as upload_command
from secateur.client import Secateur
from secateur.discovery import Endpoint
from secateur.errors import ApiError
from secateur.part_upload import UploadCorrupt, upload_in_parts
from secateur.resources import Upload
from secateur.transport import Transport

import migrations
from tests.client.faulty_server import answer, serving
from tests.service.live_server import LiveServer, live_server

PART = 200_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("parts")
    migrations.upgrade(f"sqlite:///{folder / 'secateur.db'}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECATEUR_UPLOAD_PART_BYTES", str(PART))
        with live_server(folder) as running:
            yield running


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_upload, "IN_PARTS_ABOVE", PART)
    monkeypatch.setattr(transport, "FIRST_PAUSE", 0.001)


def client_of(server: LiveServer, url: str | None = None) -> Secateur:
    return Secateur(url or server.url, server.headers["Authorization"].removeprefix("Bearer "))


def dataset(path: Path, seed: int, samples: int = 5000) -> Path:
    images = np.random.default_rng(seed).random((samples, 1, 8, 8), dtype=np.float32)
    save_file({"train/inputs/0": images}, path)
    return path


@contextmanager
def breaking(port: int, cuts: list[int]) -> Iterator[str]:
    """A relay to the server that hangs up on its first connections after so many bytes each."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, port, cuts), daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def _accept(listener: socket.socket, port: int, cuts: list[int]) -> None:
    with suppress(OSError):
        while True:
            near, _ = listener.accept()
            far = socket.create_connection(("127.0.0.1", port))
            left = cuts.pop(0) if cuts else None
            threading.Thread(target=_relay, args=(near, far, left), daemon=True).start()
            threading.Thread(target=_relay, args=(far, near, None), daemon=True).start()


def _relay(source: socket.socket, target: socket.socket, left: int | None) -> None:
    with suppress(OSError):
        while data := source.recv(65536 if left is None else min(65536, left)):
            target.sendall(data)
            if left is not None:
                left -= len(data)
                if left <= 0:
                    break
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def test_it_arrives_over_connections_that_break(server: LiveServer, tmp_path: Path) -> None:
    file = dataset(tmp_path / "a.safetensors", 1)
    seen: list[tuple[int, int]] = []
    cuts = [50_000, 300_000, 120_000, 1, 250_000]
    with breaking(server.port, cuts) as url, client_of(server, url) as client:
        made = client.upload_dataset(file, progress=lambda *done: seen.append(done))
        assert made.sha256 == sha256(file.read_bytes()).hexdigest()
        assert (made.name, made.splits) == ("a.safetensors", {"train": 5000})
        assert cuts == []
    size = file.stat().st_size
    assert seen[0] == (0, size)
    assert seen[-1] == (size, size)
    assert seen == sorted(seen)
    with client_of(server) as client:
        assert client.upload_dataset(file).id == made.id


def test_interrupted_it_goes_on_where_it_stopped(server: LiveServer, tmp_path: Path) -> None:
    file = dataset(tmp_path / "b.safetensors", 2)
    size = file.stat().st_size

    def interrupt(done: int, _total: int) -> None:
        if done >= 2 * PART:
            raise KeyboardInterrupt

    with client_of(server) as client:
        with pytest.raises(KeyboardInterrupt):
            client.upload_dataset(file, progress=interrupt)
        [begun] = client.uploads(status="open")
        assert (begun.bytes, begun.name) == (size, "b.safetensors")
        assert 2 <= begun.received_parts < 7
        resumed: list[tuple[int, int]] = []
        client.upload_dataset(file, resumed=lambda *parts: resumed.append(parts))
        assert resumed == [(begun.received_parts, 7)]
        assert [one.status for one in client.uploads(sha256=begun.sha256)] == ["completed"]
        # the bytes of the parts go, those of the datasets of these tests stay
        kept = len(list(client.datasets()))
        deadline = time.monotonic() + 20
        while len(server.blobs()) > kept and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(server.blobs()) == kept


def test_the_command_line_goes_on_and_says_so(
    server: LiveServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = dataset(tmp_path / "d.safetensors", 4, samples=2000)
    content = file.read_bytes()
    fields = {"kind": "dataset", "bytes": len(content), "sha256": sha256(content).hexdigest()}
    with httpx.Client(base_url=server.url, headers=server.headers) as http:
        begun = http.post("/v1/uploads", json=fields).json()["id"]
        http.put(f"/v1/uploads/{begun}/parts/2", content=content[PART : 2 * PART])
        monkeypatch.setenv("SECATEUR_API_KEY", http.headers["Authorization"].split()[1])
        upload_command(file, url=server.url)
        shown = capsys.readouterr()
        made = http.get(f"/v1/datasets/{shown.out.strip()}").json()
    assert made["sha256"] == fields["sha256"]
    assert "going on with d.safetensors: 1 of 3 parts are there" in shown.err
    assert "uploaded d.safetensors" in shown.err

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with ProgressDisplay(err) as display, pytest.raises(KeyboardInterrupt):
        shown_upload(display, file, interrupted)  # type: ignore[type-var]
    assert "the same command sends what is missing of d.safetensors" in capsys.readouterr().err


def test_parts_of_another_size_are_begun_anew(server: LiveServer, tmp_path: Path) -> None:
    file = dataset(tmp_path / "c.safetensors", 3)
    fields = {
        "kind": "dataset",
        "bytes": file.stat().st_size,
        "sha256": sha256(file.read_bytes()).hexdigest(),
    }
    with httpx.Client(base_url=server.url, headers=server.headers) as http:
        other = http.post("/v1/uploads", json=fields).json()["id"]
        for number in (1, 9):
            http.put(f"/v1/uploads/{other}/parts/{number}", content=bytes([number])).json()
        with client_of(server) as client:
            made = client.upload_dataset(file)
        assert made.sha256 == fields["sha256"]
        assert http.get(f"/v1/uploads/{other}").json()["status"] == "aborted"


def test_a_refused_file_is_an_error_with_its_reason(server: LiveServer, tmp_path: Path) -> None:
    file = tmp_path / "no.pt"
    file.write_bytes(bytes(3 * PART))
    with client_of(server) as client, pytest.raises(ApiError) as caught:
        client.upload_model(file)
    assert caught.value.problem.type == "/problems/not-torchscript"


def test_other_bytes_than_were_sent_are_noticed(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(bytes(1000))
    upload = Upload.model_validate(
        {
            "id": "upl_1", "kind": "model", "name": "", "status": "open", "bytes": 1000,
            "sha256": None, "received_bytes": 0, "received_parts": 0, "part_bytes": 1000,
            "max_part_bytes": 1000, "max_parts": 10, "created_at": 0, "expires_at": 0,
        }
    ).model_dump(mode="json")  # fmt: skip
    wrong = {"number": 1, "sha256": "0" * 64, "bytes": 1000}
    answers = (answer({"data": []}), answer(upload), answer(wrong))
    with serving(*answers) as faulty, pytest.raises(UploadCorrupt, match="part 1 of f"):
        upload_in_parts(Transport(Endpoint(faulty.url, None)), "model", file, name="f")
