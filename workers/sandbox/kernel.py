"""System calls that Python has no function for."""

from __future__ import annotations

import ctypes
import os

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_SET_CHILD_SUBREAPER = 36
PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def prctl(option: int, *arguments: int) -> int:
    """`prctl(2)`.

    Raises:
        OSError: the kernel refused.
    """
    padded = [ctypes.c_ulong(value) for value in (*arguments, 0, 0, 0, 0)[:4]]
    return _checked(_libc.prctl(option, *padded), f"prctl({option})")


def syscall(name: str, number: int, *arguments: object) -> int:
    """`syscall(2)`; integers are passed as longs.

    Raises:
        OSError: the kernel refused.
    """
    passed = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _checked(_libc.syscall(ctypes.c_long(number), *passed), name)


def _checked(result: int, name: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return int(result)


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapabilityData(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


_CAPABILITY_VERSION = 0x20080522


def drop_privileges() -> None:
    """No capability now or after an exec, also where the worker runs as root, and no setuid gain.

    Raises:
        OSError: the kernel refused.
    """
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    prctl(PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    for capability in range(64):
        try:
            # root gets back on exec what the bounding set holds
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:
            break  # past the last one, or it cannot be held (no CAP_SETPCAP) and so not gained
    header = _CapabilityHeader(_CAPABILITY_VERSION, 0)
    none = (_CapabilityData * 2)()
    capset = _libc.capset
    _checked(capset(ctypes.byref(header), ctypes.byref(none)), "capset")
