"""Landlock: the files, TCP ports, sockets and processes that a process may still reach.

Rules only ever take away, hold for every process started afterwards, and need no privilege. What
the running kernel does not know is left out: the ABI tells what that is (1: files, 2: links
between folders, 3: truncation, 4: TCP, 5: device ioctls, 6: signals and abstract sockets). See
`Documentation/userspace-api/landlock.rst` of Linux.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
from collections.abc import Iterable

from workers.sandbox.kernel import syscall

# the same on every architecture
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1
_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_MAKE_CHAR, _MAKE_SOCK, _MAKE_BLOCK = 1 << 6, 1 << 9, 1 << 11
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_NET_RIGHTS = 0b11
_SCOPES = 0b11
_RIGHTS_OF_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def abi() -> int:
    """Version of Landlock in the running kernel; 0 when there is none."""
    try:
        return syscall("landlock_create_ruleset", _CREATE_RULESET, None, 0, _VERSION)
    except OSError:
        return 0


def restrict(
    *,
    read: Iterable[str],
    listed: Iterable[str],
    write: Iterable[str],
    devices: Iterable[str],
    tcp: bool,
) -> None:
    """Fence in this process and all it starts; needs no_new_privs.

    Args:
        read: what may be read and executed; absent paths are left out.
        listed: folders whose entries may be listed, and whose files may not be read.
        write: what may be written, too: files, folders, links and pipes below it.
        devices: device files for reading, writing and ioctls.
        tcp: whether TCP stays allowed.

    Raises:
        OSError: there is no Landlock, or it refused.
    """
    version = abi()
    files = (1 << _RIGHTS_OF_ABI.get(version, 16)) - 1
    ruleset = _Ruleset(
        files, _NET_RIGHTS if version >= 4 and not tcp else 0, _SCOPES if version >= 6 else 0
    )
    # older kernels know a shorter structure
    size = 8 if version < 4 else 16 if version < 6 else 24
    descriptor = syscall("landlock_create_ruleset", _CREATE_RULESET, ctypes.byref(ruleset), size, 0)
    try:
        for path in read:
            _allow(descriptor, path, _READ & files)
        for path in listed:
            _allow(descriptor, path, _READ_DIR)
        for path in write:
            _allow(descriptor, path, files & ~(_MAKE_CHAR | _MAKE_BLOCK | _MAKE_SOCK | _IOCTL_DEV))
        for path in devices:
            _allow(descriptor, path, files & (_READ_FILE | _WRITE_FILE | _IOCTL_DEV | _READ_DIR))
        syscall("landlock_restrict_self", _RESTRICT_SELF, descriptor, 0)
    finally:
        os.close(descriptor)


def _allow(ruleset: int, path: str, rights: int) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not stat.S_ISDIR(os.fstat(opened).st_mode):
                rights &= _FILE_RIGHTS
            rule = _PathBeneath(rights, opened)
            syscall("landlock_add_rule", _ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)
        finally:
            os.close(opened)
