"""Start a runner behind its fences, and end it with everything it started."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from workers.sandbox import bubblewrap, filesystem
from workers.sandbox.policy import Limits, Policy

Level = Literal["full", "kernel", "limits"]
"""`full`: namespaces by bubblewrap, Landlock, seccomp and limits. `kernel`: the same without
namespaces. `limits`: limits on resources and nothing else."""

GUARDIAN = Path(__file__).with_name("guardian.py")
_START_SECONDS = 30.0
_END_SECONDS = 10.0


class NotContained(Exception):
    """The fences could not be put up, so nothing was run; the text says why."""


@dataclass(frozen=True)
class Order:
    """A process to start behind fences.

    Attributes:
        command: what to run; `--parent PID` is added.
        folder: its working folder.
        environment: all of it.
        output: descriptor of its stdout and stderr.
        passed: further descriptors it gets.
        read: what it may read besides the installation.
        write: folders it may write to.
        gpu: whether it gets the device files of GPUs.
        loopback: whether its processes talk to each other over 127.0.0.1; in the level `kernel`
            that cannot be allowed without allowing the world, and is not.
        limits: of resources.
    """

    command: Sequence[str]
    folder: Path
    environment: Mapping[str, str]
    output: int
    passed: Sequence[int] = ()
    read: Sequence[Path] = ()
    write: Sequence[Path] = ()
    gpu: bool = False
    loopback: bool = False
    limits: Limits = field(default_factory=Limits)


class Contained:
    """A guardian with its runner; ended by `kill`, whatever it has become by then."""

    def __init__(self, order: Order, level: Level) -> None:
        self._namespaces = level == "full"
        self._status, status_in = os.pipe()
        self._first: int | None = None
        try:
            self._process = self._start(order, level, status_in)
        except BaseException:
            os.close(self._status)
            raise
        finally:
            os.close(status_in)
        self._ended = False

    def _start(self, order: Order, level: Level, status: int) -> subprocess.Popen[bytes]:
        devices = list(filesystem.DEVICES)
        gpu_devices = filesystem.gpu_devices() if order.gpu else []
        read = filesystem.needed(order.command, gpu=order.gpu, further=order.read)
        write = [str(path) for path in order.write]
        of_proc = ("/proc",) if self._namespaces else filesystem.PROCESS_FACTS
        policy = Policy(
            command=list(order.command),
            status=status,
            passed=list(order.passed),
            fenced=level != "limits",
            read=[*read, *of_proc],
            listed=filesystem.import_folders(),
            write=[*write, *(bubblewrap.TEMPORARY if self._namespaces else ())],
            devices=devices + gpu_devices,
            gpu=order.gpu,
            loopback=order.loopback and self._namespaces,
            limits=order.limits,
        )
        opened: list[int] = []
        try:
            told = _readable(policy.as_json(), opened)
            # the guardian's own code is within the packages that runners read
            command = [sys.executable, "-I", "-S", str(GUARDIAN), str(told)]
            passed = [told, status, *order.passed]
            information = None
            if self._namespaces:
                arguments = bubblewrap.arguments(
                    read=read,
                    write=write,
                    devices=gpu_devices,
                    environment=order.environment,
                    folder=str(order.folder),
                )
                listed = _readable(b"".join(one.encode() + b"\0" for one in arguments), opened)
                information, said = os.pipe()
                opened += [information, said]
                bwrap = bubblewrap.find() or "bwrap"
                options = ["--args", str(listed), "--info-fd", str(said), "--"]
                command = [bwrap, *options, *command]
                passed += [listed, said]
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=order.output,
                stderr=order.output,
                cwd=order.folder,
                env=dict(order.environment),
                pass_fds=passed,
                start_new_session=True,
            )
            if information is not None:
                os.close(said)
                opened.remove(said)
                self._first = _first_process(information)
            return process
        finally:
            for descriptor in opened:
                os.close(descriptor)

    @property
    def pid(self) -> int:
        """Of the outermost process."""
        return self._process.pid

    def poll_end(self) -> bool:
        """Whether the runner has ended, and with it everything it started."""
        self._ended = self._ended or self._process.poll() is not None
        return self._ended

    def exit_code(self) -> int:
        """Exit status of the runner, negative for the signal that ended it; waits for the end.

        Raises:
            NotContained: it was never started.
        """
        outer = self._process.wait()
        said: dict[str, object] = {}
        os.set_blocking(self._status, False)
        with contextlib.suppress(BlockingIOError):
            for line in os.read(self._status, 1 << 16).splitlines():
                said |= json.loads(line)
        if "failed" in said:
            raise NotContained(str(said["failed"]))
        if "contained" not in said and outer >= 0:
            raise NotContained(f"the sandbox ended with status {outer} before the runner started")
        code = said.get("exit", -signal.SIGKILL)
        return code if isinstance(code, int) else outer

    def terminate(self, grace_seconds: float) -> None:
        """Ask the runner's process group to stop; kill everything when it has not in time."""
        if not self.poll_end():
            self._signal(signal.SIGTERM)
            deadline = time.monotonic() + grace_seconds
            while not self.poll_end() and time.monotonic() < deadline:
                time.sleep(0.02)
        self.kill()

    def kill(self) -> None:
        """End everything at once; nothing of it lives when this returns."""
        if not self.poll_end():
            # process 1 takes its namespace along; elsewhere the guardian ends what it inherited
            self._signal(signal.SIGKILL if self._namespaces else signal.SIGUSR1)
            try:
                self._process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)
                self._process.wait()
        self._ended = True

    def _signal(self, number: signal.Signals) -> None:
        if self._first is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._first, number)
        elif self._namespaces:  # bubblewrap did not get as far as a first process
            self._process.kill()
        else:
            self._process.send_signal(number)

    def close(self) -> None:
        """Kill, and close what is open."""
        self.kill()
        os.close(self._status)
        if self._first is not None:
            os.close(self._first)


def _readable(content: bytes, opened: list[int]) -> int:
    """A descriptor that the content can be read from."""
    descriptor = os.memfd_create("secateur", 0)
    opened.append(descriptor)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _first_process(information: int) -> int | None:
    """Descriptor of process 1 of the namespace, or None when bubblewrap failed before it."""
    said = b""
    while chunk := os.read(information, 4096):
        said += chunk
    try:
        return os.pidfd_open(json.loads(said)["child-pid"])
    except (ValueError, KeyError, ProcessLookupError):
        return None
