"""Namespaces by bubblewrap: the runner sees its own files, its own processes and no network."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

TEMPORARY = ("/tmp", "/dev/shm")  # noqa: S108 (the runner's own, in memory)
_TEMPORARY_BYTES = 64 << 20
_USER = "1000"


def find() -> str | None:
    """Where `bwrap` is, or None."""
    return shutil.which("bwrap")


def arguments(
    *,
    read: Iterable[str],
    write: Iterable[str],
    devices: Iterable[str],
    environment: Mapping[str, str],
    folder: str,
) -> list[str]:
    """Arguments of `bwrap` before the command.

    All namespaces are new: user (an ordinary user inside, without capabilities), processes,
    network (loopback alone), System V IPC, host name, control groups. The command is process 1.

    Args:
        read: files and folders, seen read-only under their own names.
        write: folders to write, seen under their own names.
        devices: device files besides null, zero, full, random, urandom and tty.
        environment: the whole environment.
        folder: the working folder.
    """
    options = ["--unshare-all", "--unshare-user", "--uid", _USER, "--gid", _USER]
    options += ["--cap-drop", "ALL", "--hostname", "runner", "--die-with-parent", "--new-session"]
    options += ["--as-pid-1", "--clearenv"]
    for name, value in environment.items():
        options += ["--setenv", name, value]
    options += ["--proc", "/proc", "--dev", "/dev"]
    # small, for they are memory that no limit of a process counts; TMPDIR is elsewhere
    for target in TEMPORARY:
        options += ["--size", str(_TEMPORARY_BYTES), "--tmpfs", target]
    for path in read:  # outer ones first: a mount hides what was mounted below it
        link = Path(path)
        if link.is_symlink() and len(link.parts) == 2:  # /lib and such on a merged /usr
            options += ["--symlink", str(link.readlink()), path]
        else:
            options += ["--ro-bind", path, path]
    for path in devices:
        options += ["--dev-bind", path, path]
    for path in write:
        options += ["--bind", path, path]
    return [*options, "--remount-ro", "/", "--chdir", folder]
