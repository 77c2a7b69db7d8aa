"""Polls of one job against a bare route, and two hundred pollers at once.

`wrk` (Debian's package) asks `GET /v1/jobs/{id}` of ours and of a FastAPI route that returns the
same job as a fixed pydantic model, turn by turn, closed loop: every connection asks again as soon
as it was answered. That is saturation, and the ratio is of requests per second. Then two hundred
clients poll jobs of their own at the pace of one request a second each, begun spread over the
second, and two hundred wait with `?wait=2` in a closed loop: what a poll takes beyond what it
waits for is the latency.

    python -m bench.service.polling [--seconds 5] [--rounds 5] [--connections 64] [--pollers 200]
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import statistics
import subprocess
import time
from dataclasses import dataclass
from typing import Any

from bench.service.jobs import filled
from bench.service.record import Check, keep, leave, machine
from bench.service.servers import WebServer, backend, web_server

_WAIT = 2.0


@dataclass(frozen=True)
class Saturation:
    """What one run of wrk found."""

    per_second: float
    failed: int
    processor_ms: float
    """Of the web server, for one request."""


def saturate(
    server: WebServer, path: str, headers: dict[str, str], options: argparse.Namespace
) -> Saturation:
    """Requests per second in a closed loop."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise SystemExit("wrk is not installed: apt-get install wrk")
    given = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    before = server.cpu_seconds()
    said = subprocess.run(
        [wrk, "-t1", f"-c{options.connections}", f"-d{options.seconds}s", *given,
         server.url + path],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    found = re.search(r"Requests/sec:\s+([\d.]+)", said)
    if found is None:
        raise RuntimeError(said)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    asked = re.search(r"(\d+) requests in", said)
    used = (server.cpu_seconds() - before) * 1e3 / max(int(asked[1]) if asked else 1, 1)
    return Saturation(float(found[1]), int(refused[1]) if refused else 0, used)


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> float:
    """Seconds to the whole answer, which must be 200."""
    started = time.perf_counter()
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(head.decode(errors="replace"))
    length = re.search(rb"content-length: (\d+)", head.lower())
    if length is None:
        raise RuntimeError("an answer without its length")
    await reader.readexactly(int(length[1]))
    return time.perf_counter() - started


async def _poller(
    server: WebServer, request: bytes, begin: float, end: float, pause: float
) -> list[float]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    taken: list[float] = []
    due = begin
    try:
        while (now := time.perf_counter()) < end:
            if now < due:
                await asyncio.sleep(due - now)
            taken.append(await _ask(reader, writer, request))
            due = max(due + pause, time.perf_counter()) if pause else 0.0
    finally:
        writer.close()
    return taken


async def poll(
    server: WebServer, ids: list[str], headers: dict[str, str], *, wait: float, seconds: float
) -> list[float]:
    """Seconds of every poll: one client for each job, one request a second or one long wait
    after the other. The first round, in which connections are made, is left out."""
    suffix = f"?wait={wait:g}" if wait else ""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    start = time.perf_counter() + 0.5
    pollers = [
        _poller(
            server,
            f"GET /v1/jobs/{one}{suffix} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode(),
            start + number / len(ids),
            start + seconds,
            0.0 if wait else 1.0,
        )
        for number, one in enumerate(ids)
    ]
    rounds = await asyncio.gather(*pollers)
    return [one - wait for taken in rounds for one in taken[1:]]


def spread(seconds: list[float]) -> dict[str, Any]:
    """Median, 99th percentile and largest in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100)
    return {
        "polls": len(seconds),
        "p50_ms": round(statistics.median(seconds) * 1e3, 2),
        "p99_ms": round(cuts[98] * 1e3, 2),
        "max_ms": round(max(seconds) * 1e3, 2),
    }


def main() -> bool:
    """Run it; whether the targets are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--pollers", type=int, default=200)
    options, _ = parser.parse_known_args()
    facts = machine()
    with backend() as world:
        tenant_id, headers = world.tenant("pollers")
        ids = filled(world, [tenant_id], options.pollers)
        world.analyse()
        rates: dict[str, list[float]] = {"peer": [], "ours": []}
        used: dict[str, list[float]] = {"peer": [], "ours": []}
        peer = web_server("bench.service.peer:route", world.environment, world.folder)
        # counted as always, with a limit that no loop reaches
        with world.api(SECATEUR_RATE_LIMIT_PER_MINUTE=str(10**9)) as ours, peer as bare:
            path = f"/v1/jobs/{ids[0]}"
            for turn in range(options.rounds + 1):
                found = {
                    "peer": saturate(bare, path, {}, options),
                    "ours": saturate(ours, path, headers, options),
                }
                if found["ours"].failed or found["peer"].failed:
                    raise RuntimeError(f"requests failed: {found}")
                if turn:  # the first round warms up
                    for name, one in found.items():
                        rates[name].append(one.per_second)
                        used[name].append(one.processor_ms)
                        print(
                            f"{name} {one.per_second:.0f}/s ({one.processor_ms:.2f} ms each)",
                            flush=True,
                        )
        with world.api(SECATEUR_RATE_LIMIT_PER_MINUTE=str(10**9)) as ours:
            before = ours.cpu_seconds()
            paced = asyncio.run(poll(ours, ids, headers, wait=0, seconds=15))
            busy = (ours.cpu_seconds() - before) / 15
            waiting = asyncio.run(poll(ours, ids, headers, wait=_WAIT, seconds=15))
    ratio = statistics.median(
        own / bare for own, bare in zip(rates["ours"], rates["peer"], strict=True)
    )
    paced_spread, long = spread(paced), spread(waiting)
    figures = {
        "requests_per_second": {name: [round(one) for one in rate] for name, rate in rates.items()},
        "processor_ms_per_request": {k: round(statistics.median(v), 3) for k, v in used.items()},
        "over_peer": round(ratio, 3),
        "connections": options.connections,
        "pollers": options.pollers,
        "one_a_second": paced_spread | {"processor_share": round(busy, 3)},
        "long_polls": long | {"wait_seconds": _WAIT},
    }
    print({k: v for k, v in figures.items() if k in ("one_a_second", "long_polls")})
    return keep(
        "polling",
        facts,
        figures,
        [
            Check("requests/s over the bare route's", ratio, 0.4, "at least", "x"),
            Check("p99 of pollers, one a second", paced_spread["p99_ms"], 50, "at most", "ms"),
            Check("p99 of long polls, beyond the wait", long["p99_ms"], 50, "at most", "ms"),
        ],
    )


if __name__ == "__main__":
    leave(main())
