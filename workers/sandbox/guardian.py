"""`python -I -S guardian.py POLICY_FD`: stands between a supervisor and its runner.

It starts the runner behind the fences of its policy, passes SIGTERM on to the runner's process
group, collects every process that lost its parent, and ends all of them when the runner ends, when
it gets SIGUSR1 or when the supervisor dies. In a process namespace it is process 1. What it
reports, one JSON line each, goes to a descriptor that the runner never has: that the runner started
(`contained`) or why not (`failed`), and how it ended (`exit`, negative for a signal).

It is itself outside the fences, so that what runs behind them cannot signal or trace it. Only
the standard library is imported, and no file of the job is touched.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
from pathlib import Path
from types import FrameType

sys.path.append(str(Path(__file__).parents[2]))

from workers.sandbox import landlock, seccomp
from workers.sandbox.kernel import (
    PR_SET_CHILD_SUBREAPER,
    PR_SET_DUMPABLE,
    PR_SET_PDEATHSIG,
    drop_privileges,
    prctl,
)
from workers.sandbox.policy import Limits, Policy

_NOT_CONTAINED = 125
_RESOURCES = {
    "cpu_seconds": resource.RLIMIT_CPU,
    "data_bytes": resource.RLIMIT_DATA,
    "file_bytes": resource.RLIMIT_FSIZE,
    "open_files": resource.RLIMIT_NOFILE,
    "processes": resource.RLIMIT_NPROC,
}


class _EndAll(BaseException):
    """The supervisor wants the end, or has met its own."""


class Guardian:
    """One runner's guardian."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._runner: int | None = None

    def run(self) -> int:
        """Start the runner, wait for its end and end what it left; returns an exit status."""
        signal.signal(signal.SIGTERM, self._pass_on)
        signal.signal(signal.SIGUSR1, self._end_all)
        if sys.platform == "linux":
            prctl(PR_SET_CHILD_SUBREAPER, 1)
            prctl(PR_SET_DUMPABLE, 0)
            if os.getpid() != 1:
                prctl(PR_SET_PDEATHSIG, signal.SIGUSR1)
        code = -signal.SIGKILL
        try:
            failed = self._start()
            if failed:
                self._report(failed=failed)
                return _NOT_CONTAINED
            self._report(contained=True)
            code = self._wait()
        except _EndAll:
            pass
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        end_descendants()
        self._report(exit=code)
        return code if code >= 0 else 128 - code

    def _start(self) -> str:
        """Fork and exec; returns why the runner did not start, or nothing."""
        told, tell = os.pipe()  # closed by a successful exec
        self._runner = os.fork()
        if self._runner == 0:
            try:
                os.close(self._policy.status)
                self._become_runner()
            except BaseException as error:
                os.write(tell, f"{type(error).__name__}: {error}".encode())
            finally:
                os._exit(_NOT_CONTAINED)
        os.close(tell)
        # the supervisor waits for the end of what comes on the runner's descriptors
        for descriptor in self._policy.passed:
            os.close(descriptor)
        with open(told, "rb") as words:  # noqa: PTH123 (a descriptor)
            return words.read().decode(errors="replace")

    def _become_runner(self) -> None:
        policy = self._policy
        parent = os.getppid()
        os.setsid()  # a process group of its own, which signals are passed on to
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        if sys.platform == "linux":
            # should memory run out, the kernel ends this before the worker
            Path("/proc/self/oom_score_adj").write_text("1000")
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        limit(policy.limits)
        if policy.fenced:
            drop_privileges()
            landlock.restrict(
                read=[*policy.read, f"/proc/{os.getpid()}"],
                listed=policy.listed,
                write=policy.write,
                devices=policy.devices,
                tcp=policy.loopback,
            )
            seccomp.restrict(loopback=policy.loopback, memory_files=policy.gpu)
        command = [*policy.command, "--parent", str(parent)]
        os.execvp(command[0], command)  # noqa: S606

    def _wait(self) -> int:
        while True:
            pid, status = os.waitpid(-1, 0)
            if pid == self._runner:
                return os.waitstatus_to_exitcode(status)

    def _report(self, **said: object) -> None:
        with contextlib.suppress(BrokenPipeError):  # the supervisor is gone
            os.write(self._policy.status, json.dumps(said).encode() + b"\n")

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        if self._runner is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._runner, number)

    def _end_all(self, _number: int, _frame: FrameType | None) -> None:
        raise _EndAll


def limit(limits: Limits) -> None:
    """Set the limits of this process and of all it starts."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for name, kind in _RESOURCES.items():
        value = getattr(limits, name)
        if value is not None:
            hard = resource.getrlimit(kind)[1]
            if hard != resource.RLIM_INFINITY:
                value = min(value, hard)
            # at the soft limit comes SIGXCPU, which tells what happened; at the hard one SIGKILL
            hardest = value + 5 if kind == resource.RLIMIT_CPU and hard < 0 else value
            resource.setrlimit(kind, (value, hardest))


def end_descendants() -> None:
    """Kill whatever descends from this process until nothing does.

    As the subreaper it inherits every process whose parent ended, so none escapes by leaving its
    group or session.
    """
    while True:
        for pid in _descendants():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _descendants() -> list[int]:
    """Process ids, from parents to children."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                stat = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                children.setdefault(int(stat[1]), []).append(int(entry.name))
    found = [os.getpid()]
    for pid in found:
        found += children.get(pid, [])
    return found[1:]


def main() -> int:
    """Read the policy and guard."""
    with open(int(sys.argv[1]), "rb") as told:  # noqa: PTH123 (a descriptor)
        policy = Policy.from_json(told.read())
    return Guardian(policy).run()


if __name__ == "__main__":
    sys.exit(main())
