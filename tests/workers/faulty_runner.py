"""A runner that misbehaves on demand: `faulty_runner.py BEHAVIOUR --job F --events-fd N ...`.

It stands where `workers.runner` stands, for the faults a real one shows only by accident.
"""

# ruff: noqa: T201 (its output is what the tests look at)

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

parser = argparse.ArgumentParser()
parser.add_argument("behaviour")
parser.add_argument("--job", type=Path)
parser.add_argument("--events-fd", type=int)
parser.add_argument("--parent", type=int)
arguments = parser.parse_args()
job = json.loads(arguments.job.read_text())
work = Path(job["workdir"])


def send(**message: Any) -> None:
    raw(json.dumps(message).encode() + b"\n")


def raw(data: bytes) -> None:
    while data:
        data = data[os.write(arguments.events_fd, data) :]


def artifact(path: str, kind: str = "model") -> None:
    send(kind="artifact", artifact=kind, path=path, media_type="application/octet-stream")


def succeed(**result: Any) -> None:
    send(kind="result", result=result)
    sys.exit(0)


match arguments.behaviour:
    case "tell":
        succeed(
            environment=dict(os.environ),
            cwd=os.getcwd(),  # noqa: PTH109
            descriptors=sorted(
                int(name)
                for name in os.listdir("/proc/self/fd")  # noqa: PTH208
                if Path(f"/proc/self/fd/{name}").exists()
            ),
            group=os.getpgid(0) == os.getpid(),
            job=job,
            inputs={p.name: p.read_text() for p in (work.parent / "input").iterdir()},
            links=[p.name for p in (work.parent / "input").iterdir() if p.stat().st_nlink > 1],
        )
    case "work":
        send(kind="stage_started", index=0, name="prune")
        for step in range(3):
            send(kind="progress", current=step + 1, total=3, unit="steps")
            send(kind="metric", name="loss", value=1 / (step + 1), step=step, stage="prune")
        send(kind="log", message="half way", data={"note": "nul \x00 and \ud800 surrogate"})
        send(kind="stage_finished", index=0, name="prune", measurement=None)
        print("printed \x00 by the runner")
        (work / "out").mkdir()
        (work / "out" / "compact.pt").write_bytes(b"smaller")
        artifact("out/compact.pt")
        succeed(fine=True)
    case "fail-with-artifacts":
        (work / "report.json").write_text("{}")
        artifact("report.json", "report_json")
        send(kind="error", type="constraint-unmet", title="Too slow.", hint="Prune less.")
    case "segfault":
        send(kind="stage_started", index=0, name="prune")
        os.kill(os.getpid(), signal.SIGSEGV)
    case "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    case "status-7":
        print("last words")
        sys.exit(7)
    case "no-result":
        sys.exit(0)
    case "not-json":
        raw(b"{oops\n")
        time.sleep(60)
    case "unknown-kind":
        send(kind="promote", to="admin")
        time.sleep(60)
    case "not-finite":
        raw(b'{"kind":"metric","name":"loss","value":1e999,"step":0,"stage":""}\n')
        time.sleep(60)
    case "deep":
        raw(b"[" * 100_000 + b"\n")
        time.sleep(60)
    case "endless-line":
        while True:
            raw(b"x" * 65536)
    case "outside-path":
        artifact("../job.json")
        succeed()
    case "absolute-path":
        artifact("/etc/hostname")
        succeed()
    case "link":
        (work / "compact.pt").symlink_to("/etc/hostname")
        artifact("compact.pt")
        succeed()
    case "linked-folder":
        (work / "out").symlink_to("/etc")
        artifact("out/hostname")
        succeed()
    case "hard-link":
        (work / "other").write_text("other")
        os.link(work / "other", work / "compact.pt")
        artifact("compact.pt")
        succeed()
    case "pipe":
        os.mkfifo(work / "compact.pt")
        artifact("compact.pt")
        succeed()
    case "absent-file":
        artifact("compact.pt")
        succeed()
    case "checkpoint-outside":
        send(kind="checkpoint", path="../job.json")
        time.sleep(60)
    case "flood":
        for step in range(10_000):
            send(kind="log", message="flood", data={})
            send(kind="metric", name="loss", value=0.5, step=step, stage="")
            print("flood " * 100)
        succeed()
    case "children":
        # deaf to SIGTERM, like its child
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        code = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
        child = subprocess.Popen([sys.executable, "-c", code])
        send(kind="log", message="children", data={"pids": [os.getpid(), child.pid]})
        time.sleep(600)
    case "orphan":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        succeed(pids=[child.pid])
    case "fails-for-good" | "fails-this-time":
        (work / "checkpoint").write_text("epoch 0")
        send(kind="checkpoint", path="checkpoint")
        again = arguments.behaviour == "fails-this-time"
        send(kind="error", type="unlucky", title="no", retryable=again)
    case "resume":
        if job["checkpoint"] is None:
            for epoch in range(3):
                (work / "next").write_text(f"epoch {epoch}")
                (work / "next").rename(work / "checkpoint")
                send(kind="checkpoint", path="checkpoint")
            time.sleep(600)
        succeed(resumed=Path(job["checkpoint"]).read_text())
    case "sleep":
        send(kind="log", message="asleep", data={})
        time.sleep(600)
    case "spin":
        while True:
            pass
    case "hoard":
        # each within what one process may have
        code = "import time; held = bytearray(90 << 20); time.sleep(60)"
        for _ in range(5):
            subprocess.Popen([sys.executable, "-S", "-c", code])
        time.sleep(60)
    case "bomb":
        for _ in range(100):
            threading.Thread(target=time.sleep, args=(60,)).start()
        time.sleep(60)
    case "fill":
        for number in range(100):
            (work / f"{number}").write_bytes(bytes(1 << 20))
        time.sleep(60)
