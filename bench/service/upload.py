"""Uploads against the least that could take them: a handler that writes and hashes the stream.

Turn by turn a bare ASGI application (`peer.receiver`) and `POST /v1/datasets` and
`POST /v1/models` take a gibibyte from the same sender over one connection. What is timed is what
the user waits for, from the first byte sent to the answer: for ours that is receiving, hashing,
writing, bringing it to the disk (fsync; the peer does not), the gate's checks and the rows in the
database. What the model's gate costs of it is timed by itself on the same file. Then a dataset of
four gibibytes goes up, and the memory of the API is watched.

    python -m bench.service.upload [--mib 1024] [--rounds 5] [--large-mib 4096]
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch

from bench.service.record import Check, keep, leave, machine
from bench.service.servers import Backend, WebServer, backend, web_server
from persistence.settings import Settings
from service.models.archive_gate import check_archive
from service.models.service import zip_limits

MIB = 2**20
_ROW = 1024
_GATE_RUNS = 3


def dataset_header(size: int) -> bytes:
    """The start of a safetensors file of about `size` bytes: its inputs' bytes come next."""
    rows = size // _ROW
    targets = rows * 8
    header = {
        "train/targets/0": {"dtype": "I64", "shape": [rows], "data_offsets": [0, targets]},
        "train/inputs/0": {
            "dtype": "U8",
            "shape": [rows, _ROW],
            "data_offsets": [targets, targets + rows * _ROW],
        },
    }
    written = json.dumps(header).encode()
    return len(written).to_bytes(8, "little") + written


def dataset(size: int) -> Iterator[bytes]:
    """A dataset of about `size` bytes of inputs, in pieces."""
    yield dataset_header(size)
    rows = size // _ROW
    piece = os.urandom(MIB)
    left = rows * 8 + rows * _ROW
    while left > 0:
        yield piece[: min(left, MIB)]
        left -= MIB


def write_model(size: int, file: Path) -> None:
    """A TorchScript model with one weight of `size` bytes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        layer = torch.nn.Linear(1024, size // 4 // 1024, bias=False)
        torch.jit.save(torch.jit.trace(layer, torch.zeros(1, 1024)), file)


@contextmanager
def connection(server: WebServer, path: str, size: int, headers: dict[str, str]) -> Iterator[Any]:
    """A connection on which the headers of a POST are sent."""
    link = http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)
    try:
        link.putrequest("POST", path)
        link.putheader("Content-Length", str(size))
        link.putheader("Content-Type", "application/octet-stream")
        for name, value in headers.items():
            link.putheader(name, value)
        link.endheaders()
        yield link
    finally:
        link.close()


def answer(link: http.client.HTTPConnection) -> dict[str, Any]:
    """The object that was made; empty for the peer's."""
    response = link.getresponse()
    body = response.read()
    if response.status != 201:
        raise RuntimeError(f"{response.status}: {body.decode(errors='replace')}")
    found: dict[str, Any] = json.loads(body) if body.startswith(b"{") else {}
    return found


def send_file(
    server: WebServer, path: str, file: Path, headers: dict[str, str]
) -> tuple[float, dict[str, Any]]:
    """Seconds to upload a file out of the operating system's cache, and the answer."""
    size = file.stat().st_size
    os.sync()  # what earlier rounds left to be written is not this round's
    with file.open("rb") as source:
        started = time.perf_counter()
        with connection(server, path, size, headers) as link:
            link.sock.sendfile(source)
            made = answer(link)
        return time.perf_counter() - started, made


def send_pieces(
    server: WebServer, path: str, pieces: Iterable[bytes], size: int, headers: dict[str, str]
) -> dict[str, Any]:
    """Upload what is made on the way."""
    with connection(server, path, size, headers) as link:
        channel: socket.socket = link.sock
        for piece in pieces:
            channel.sendall(piece)
        return answer(link)


def remove(server: WebServer, path: str, headers: dict[str, str]) -> None:
    """Delete what was made, so that the next upload is new again."""
    link = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    link.request("DELETE", path, headers=headers)
    if (status := link.getresponse().status) != 204:
        raise RuntimeError(f"DELETE {path} answered {status}")
    link.close()


Seconds = dict[str, list[float]]


def throughput(world: Backend, options: argparse.Namespace) -> tuple[Seconds, Seconds]:
    """Seconds of each upload, and of the model's gate, by turns; processor time of the server."""
    seconds: Seconds = {"peer": [], "dataset": [], "model": [], "gate": []}
    busy: Seconds = {"peer": [], "dataset": [], "model": []}
    files = {"datasets": world.folder / "data.safetensors", "models": world.folder / "model.pt"}
    with files["datasets"].open("wb") as out:
        out.writelines(dataset(options.mib * MIB))
    write_model(options.mib * MIB, files["models"])
    _, headers = world.tenant("uploads")
    place = world.folder / "peer"
    place.mkdir()
    peer = web_server(
        "bench.service.peer:receiver",
        world.environment | {"PEER_FOLDER": str(place)},
        world.folder,
    )
    with world.api() as ours, peer as bare:
        for turn in range(options.rounds + 1):
            before = bare.cpu_seconds()
            taken = {"peer": send_file(bare, "/", files["datasets"], {})[0]}
            used = {"peer": bare.cpu_seconds() - before}
            for kind, file in files.items():
                before = ours.cpu_seconds()
                taken[kind[:-1]], made = send_file(ours, f"/v1/{kind}", file, headers)
                used[kind[:-1]] = ours.cpu_seconds() - before
                remove(ours, f"/v1/{kind}/{made['id']}", headers)
            if turn == 0:
                continue  # the first round warms up
            for name, spent in taken.items():
                seconds[name].append(spent)
                busy[name].append(used[name])
            print(
                ", ".join(
                    f"{name} {spent:.2f} s ({used[name]:.2f} s of processor)"
                    for name, spent in taken.items()
                ),
                flush=True,
            )
    limits = zip_limits(Settings())
    for _ in range(_GATE_RUNS):
        started = time.perf_counter()
        check_archive(files["models"], limits)
        seconds["gate"].append(time.perf_counter() - started)
    return seconds, busy


def memory_growth(world: Backend, mib: int) -> int:
    """Bytes by which the API's resident memory grew at most while it took a large dataset."""
    _, headers = world.tenant("uploads")
    with world.api() as ours:
        small = list(dataset(16 * MIB))
        made = send_pieces(ours, "/v1/datasets", small, sum(map(len, small)), headers)
        remove(ours, f"/v1/datasets/{made['id']}", headers)
        ours.forget_peak()
        before = ours.memory()
        size = len(dataset_header(mib * MIB)) + mib * MIB // _ROW * (8 + _ROW)
        made = send_pieces(ours, "/v1/datasets", dataset(mib * MIB), size, headers)
        grown = ours.peak_memory() - before
        remove(ours, f"/v1/datasets/{made['id']}", headers)
    return grown


def main() -> bool:
    """Run it; whether the targets are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--large-mib", type=int, default=4096)
    options, _ = parser.parse_known_args()
    facts = machine()
    with backend() as world:
        seconds, busy = throughput(world, options)
        grown = memory_growth(world, options.large_mib)
    middle = {name: median(values) for name, values in seconds.items()}
    ratios = {
        kind: median(bare / own for bare, own in zip(seconds["peer"], seconds[kind], strict=True))
        for kind in ("dataset", "model")
    }
    figures = {
        "mib": options.mib,
        "large_mib": options.large_mib,
        "seconds": {name: [round(one, 3) for one in values] for name, values in seconds.items()},
        "median_seconds": {name: round(value, 3) for name, value in middle.items()},
        "median_processor_seconds": {k: round(median(v), 3) for k, v in busy.items()},
        "throughput_over_peer": {kind: round(ratio, 3) for kind, ratio in ratios.items()},
        "memory_growth_mib": round(grown / MIB, 1),
    }
    print(f"median seconds of {options.mib} MiB: {figures['median_seconds']}")
    print(
        f"a model without its gate would reach "
        f"{middle['peer'] / max(middle['model'] - middle['gate'], 1e-9):.2f} of the peer"
    )
    return keep(
        "upload",
        facts,
        figures,
        [
            Check("dataset, throughput over the peer's", ratios["dataset"], 0.8, "at least", "x"),
            Check("model, throughput over the peer's", ratios["model"], 0.8, "at least", "x"),
            Check("growth of the API's memory", grown / MIB, 64, "at most", "MiB"),
        ],
    )


if __name__ == "__main__":
    leave(main())
