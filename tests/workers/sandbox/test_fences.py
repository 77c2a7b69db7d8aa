"""What a runner reaches from behind the fences: tried in each level, so that each stands alone."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.workers.sandbox.inside import LEVELS, Inside, Limits
from workers.sandbox import choice, launch
from workers.sandbox.choice import Uncontained, contain, meets_required
from workers.sandbox.filesystem import ForeignFolder, check_apart
from workers.sandbox.self_test import attempt
from workers.sandbox.system_calls import ARCHITECTURES


@pytest.fixture(params=LEVELS)
def inside(request: pytest.FixtureRequest, tmp_path: Path) -> Inside:
    return Inside(tmp_path, request.param)


def test_nothing_but_its_own_is_read(inside: Inside) -> None:
    other = inside.root / "other.1" / "input"
    other.mkdir(parents=True)
    (other / "model.pt").write_text("another tenant's")
    (inside.root / "secateur.db").write_text("database")
    paths = [other / "model.pt", inside.root / "secateur.db", "/etc/passwd", "/etc/shadow"]
    paths += [f"/proc/{os.getpid()}/{name}" for name in ("environ", "cmdline", "maps", "mem")]
    told = inside.told(
        f"""
        paths = {[str(path) for path in paths]!r}
        listed = ["/root", "/home", "/var", {str(other)!r}]
        print(json.dumps([
            [tried(lambda: open(p).read()) for p in paths],
            [tried(lambda: os.listdir(p)) for p in listed],
            [tried(lambda: open(f"/proc/{{p}}/environ").read()) for p in [os.getppid()]],
        ]))
        """
    )
    assert {one for group in told for one in group} <= {"EACCES", "ENOENT", "EPERM"}, told


def test_nothing_but_its_own_is_written(inside: Inside) -> None:
    kept = inside.root / "kept"
    kept.write_text("kept")
    script = Path(launch.__file__)
    before = script.read_bytes()
    told = inside.told(
        f"""
        open("mine", "w").write("mine")
        print(json.dumps([tried(action) for action in (
            lambda: open({str(kept)!r}, "w"),
            lambda: os.truncate({str(kept)!r}, 0),
            lambda: os.unlink({str(kept)!r}),
            lambda: os.rename({str(kept)!r}, "taken"),
            lambda: os.link({str(kept)!r}, "linked"),
            lambda: open({str(script)!r}, "a"),
            lambda: open("/usr/bin/new", "w"),
            lambda: os.mknod("device", 0o20666, os.makedev(1, 3)),
        )]))
        """
    )
    refused = {"EACCES", "ENOENT", "EPERM", "EROFS", "EXDEV"}
    # with namespaces, a /tmp of its own lies where this test's folder is: harmless writes succeed
    assert set(told) <= (refused | {"done"} if inside.level == "full" else refused), told
    assert sorted(path.name for path in inside.root.iterdir()) == ["kept", "work"]
    assert kept.read_text() == "kept"
    assert script.read_bytes() == before
    assert (inside.work / "mine").read_text() == "mine"


@pytest.fixture
def listeners(tmp_path: Path) -> Iterator[tuple[int, str]]:
    path = str(tmp_path / "socket")
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as tcp,
        closing(socket.socket(socket.AF_UNIX)) as named,
        closing(socket.socket(socket.AF_UNIX)) as abstract,
    ):
        named.bind(path)
        abstract.bind("\0" + path)
        named.listen()
        abstract.listen()
        yield tcp.getsockname()[1], path


CONNECT = """
import socket
tries = {{
    "tcp": (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", {port})),
    "udp": (socket.AF_INET, socket.SOCK_DGRAM, ("192.0.2.1", 53)),
    "named": (socket.AF_UNIX, socket.SOCK_STREAM, {path!r}),
    "abstract": (socket.AF_UNIX, socket.SOCK_STREAM, "\\0" + {path!r}),
    "postgresql": (socket.AF_UNIX, socket.SOCK_STREAM, "/var/run/postgresql/.s.PGSQL.5432"),
}}
def connect(family, kind, address):
    with socket.socket(family, kind) as made:
        made.settimeout(5)
        made.connect(address)
print(json.dumps({{name: tried(lambda: connect(*one)) for name, one in tries.items()}}))
"""


def test_no_socket_is_reached(inside: Inside, listeners: tuple[int, str]) -> None:
    port, path = listeners
    told = inside.told(CONNECT.format(port=port, path=path))
    assert set(told.values()) == {"EPERM"}, told


def test_processes_that_train_together_have_a_loopback_of_their_own(
    tmp_path: Path, listeners: tuple[int, str]
) -> None:
    """Where sockets are allowed, the network namespace alone keeps the world out."""
    port, path = listeners
    inside = Inside(tmp_path, "full")
    lines = CONNECT.format(port=port, path=path) + (
        "with socket.create_server(('127.0.0.1', 0)) as here:\n"
        "    socket.create_connection(here.getsockname(), 5).close()\n"
    )
    told = inside.told(lines, loopback=True)
    assert told["tcp"] == "ECONNREFUSED"
    assert told["udp"] == "ENETUNREACH"
    assert {told[name] for name in ("named", "abstract", "postgresql")} <= {
        "ENOENT", "ECONNREFUSED", "EPERM", "EACCES",
    }  # fmt: skip


def test_nobody_outside_is_signalled_or_traced(inside: Inside) -> None:
    ptrace = ARCHITECTURES[os.uname().machine].numbers["ptrace"]
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        told = inside.told(
            f"""
            import resource, signal
            libc = ctypes.CDLL(None, use_errno=True)
            def call(number, *arguments):
                if libc.syscall(number, *arguments) < 0:
                    raise OSError(ctypes.get_errno(), "no")
            print(json.dumps([tried(action) for action in (
                lambda: os.kill({victim.pid}, signal.SIGKILL),
                lambda: os.kill({os.getpid()}, 0),
                lambda: call({ptrace}, 16, os.getppid()),
                lambda: resource.prlimit({victim.pid}, resource.RLIMIT_NOFILE, (1, 1)),
                lambda: call({ptrace}, 16, {victim.pid}),
            )]))
            """
        )
        assert set(told) <= {"EPERM", "ESRCH"}, told
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()


def test_calls_that_no_runner_needs_are_refused(inside: Inside) -> None:
    numbers = ARCHITECTURES[os.uname().machine].numbers
    refused = {
        name: numbers[name]
        for name in ("unshare", "setns", "mount", "keyctl", "bpf", "perf_event_open", "ptrace",
                     "userfaultfd", "io_uring_setup", "memfd_create", "shmget", "init_module",
                     "process_vm_readv", "kexec_load", "open_by_handle_at")
    }  # fmt: skip
    told = inside.told(
        f"""
        libc = ctypes.CDLL(None, use_errno=True)
        def call(number, *arguments):
            ctypes.set_errno(0)
            libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
            return errno.errorcode.get(ctypes.get_errno(), "done")
        answers = {{name: call(number, 0, 0, 0, 0, 0) for name, number in {refused!r}.items()}}
        answers["clone"] = call({numbers["clone"]}, 0x10000000 | 17, 0, 0, 0, 0)
        answers["clone3"] = call({numbers["clone3"]}, 0, 0)
        status = open("/proc/self/status").read()
        answers["kept"] = [
            line for line in status.splitlines()
            if line.startswith("Cap") and int(line.split()[1], 16)
        ]
        answers["no_new_privs"] = "NoNewPrivs:\\t1" in status
        print(json.dumps(answers))
        """
    )
    assert told.pop("clone3") == "ENOSYS"
    assert told.pop("kept") == []
    assert told.pop("no_new_privs") is True
    assert set(told.values()) == {"EPERM"}, told


def test_nothing_survives_that_left_its_group_and_session(inside: Inside) -> None:
    """By its own end, and by a kill."""
    away = """
        code = "import time; open('alive', 'w').write('x'); time.sleep(1.5); open('late', 'w')"
        subprocess.Popen([sys.executable, "-c", "import os, subprocess, sys;"
            "subprocess.Popen([sys.executable, '-c', sys.argv[1]], start_new_session=True)", code])
        while not os.path.exists("alive"):
            time.sleep(0.01)
        print("away", flush=True)
        """
    printed, code = inside.run(away)
    assert (printed, code) == ("away\n", 0)
    (inside.work / "alive").unlink()
    contained, listen = inside.start(away + "    \n        time.sleep(60)\n")
    with open(listen, "rb") as words:  # noqa: PTH123
        assert words.readline() == b"away\n"
        contained.kill()
        assert words.read() == b"", "every holder of the pipe is gone"
    contained.close()
    remains = [
        entry.name
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and str(inside.work).encode() in _environment(entry)
    ]
    assert remains == []
    assert not (inside.work / "late").exists()


def _environment(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()
    except OSError:
        return b""


def test_a_stop_reaches_the_runner_and_its_status_comes_back(inside: Inside) -> None:
    lines = """
        import signal
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        print("ready", flush=True)
        time.sleep(60)
        """
    contained, listen = inside.start(lines)
    with open(listen, "rb") as words:  # noqa: PTH123
        assert words.readline() == b"ready\n"
        contained.terminate(20)
    assert contained.exit_code() == 143
    contained.close()


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ("os.kill(os.getpid(), 11)", -11),
        ("os.abort()", -6),
        ("sys.exit(139)", 139),
        ("while True: pass", -24),
    ],
)
def test_how_it_ended_is_told_exactly(inside: Inside, lines: str, code: int) -> None:
    assert inside.run(lines, limits=Limits(cpu_seconds=1))[1] == code


@pytest.mark.parametrize("level", LEVELS)
def test_the_self_test_finds_every_fence_standing(level: launch.Level) -> None:
    refused = attempt(level)
    assert all(refused.values()), refused
    assert meets_required(refused)


def test_the_self_test_gets_through_where_nothing_is_fenced() -> None:
    refused = attempt("limits")
    assert not any(refused.values()), refused


@pytest.fixture
def nothing_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(choice.bubblewrap, "find", lambda: None)
    monkeypatch.setattr(choice.landlock, "abi", lambda: 0)
    contain.cache_clear()
    yield
    contain.cache_clear()


def test_a_machine_without_fences_is_refused_with_what_is_missing(nothing_here: None) -> None:
    with pytest.raises(Uncontained, match="lsm=landlock") as refusal:
        contain("required")
    assert "best_effort" in str(refusal.value)
    assert contain("best_effort").level == "limits"
    assert not contain("best_effort").contained


def test_without_bubblewrap_the_kernel_contains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice.bubblewrap, "find", lambda: None)
    contain.cache_clear()
    try:
        found = contain("required")
    finally:
        contain.cache_clear()
    assert (found.level, found.contained) == ("kernel", True)
    assert "apt-get install bubblewrap" in found.missing[0]
    assert "/" not in json.dumps(found.as_json())


def test_data_inside_the_installation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ForeignFolder, match="lies inside"):
        check_apart([tmp_path / "lib" / "data"], [str(tmp_path / "lib")])
    check_apart([tmp_path / "data"], [str(tmp_path / "lib")])
