"""seccomp: the system calls that a runner may not make, as a BPF program written by hand.

A list of what is refused, not of what is allowed: compilers, torch, CUDA and the runtimes of
exports make too many calls for the other, and files are Landlock's matter. A refused call fails
with EPERM; `clone3`, whose flags a filter cannot see, with ENOSYS, so that the C library falls
back to `clone`, whose flags it can. See `Documentation/userspace-api/seccomp_filter.rst` of Linux.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import socket
import struct

from workers.sandbox.kernel import syscall
from workers.sandbox.system_calls import ARCHITECTURES, Architecture, refused

_SET_MODE_FILTER = 1
_TSYNC = 1
_LOAD_WORD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_X32 = 0x40000000
_TIOCSTI = 0x5412
# mount, cgroup, uts, ipc, user, pid, net and time namespaces
_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000
_NAMESPACES |= 0x40000000
_NETLINK = 16
_LOOPBACK_FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, _NETLINK)

Instruction = tuple[int, int, int, int]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def supported() -> bool:
    """Whether this machine's architecture is known here."""
    return platform.machine() in ARCHITECTURES


def restrict(*, loopback: bool, memory_files: bool) -> None:
    """Filter the calls of this process and of all it starts; needs no_new_privs.

    Args:
        loopback: whether sockets may be made.
        memory_files: whether files in memory may be made, as drivers of GPUs do.

    Raises:
        OSError: the kernel refused, or the architecture is none of x86_64 and aarch64.
    """
    architecture = ARCHITECTURES.get(platform.machine())
    if architecture is None:
        raise OSError(errno.ENOSYS, f"no seccomp filter for {platform.machine()}")
    instructions = program(architecture, loopback=loopback, memory_files=memory_files)
    code = b"".join(struct.pack("=HBBI", *one) for one in instructions)
    buffer = ctypes.create_string_buffer(code)
    filter_ = _Program(len(instructions), ctypes.cast(buffer, ctypes.c_void_p))
    syscall("seccomp", architecture.seccomp, _SET_MODE_FILTER, _TSYNC, ctypes.byref(filter_))


def program(architecture: Architecture, *, loopback: bool, memory_files: bool) -> list[Instruction]:
    """The filter: blocks that each look at the number of the call and end, or go on to the next."""
    lines: list[Instruction] = [
        (_LOAD_WORD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture.audit),
        (_RETURN, 0, 0, _KILL),  # calls of another architecture have other numbers
        (_LOAD_WORD, 0, 0, _NUMBER),
    ]
    if architecture.has_x32:
        lines += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _ERRNO | errno.EPERM)]
    numbers = architecture.numbers
    for name in refused(memory_files=memory_files):
        if name in numbers:
            lines += _if_number(numbers[name], [(_RETURN, 0, 0, _ERRNO | errno.EPERM)])
    lines += _if_number(numbers["clone3"], [(_RETURN, 0, 0, _ERRNO | errno.ENOSYS)])
    lines += _if_number(numbers["clone"], _refuse_if(_ANY_BIT, 0, _NAMESPACES))
    lines += _if_number(numbers["ioctl"], _refuse_if(_EQUAL, 1, _TIOCSTI))
    lines += _if_number(numbers["prlimit64"], _refuse_unless_zero(0))
    families = _LOOPBACK_FAMILIES if loopback else ()
    lines += _if_number(numbers["socket"], _only(families))
    # unnamed pairs reach nobody; other families than AF_UNIX have none
    lines += _if_number(numbers["socketpair"], _only((socket.AF_UNIX,)))
    return [*lines, (_RETURN, 0, 0, _ALLOW)]


def _if_number(number: int, block: list[Instruction]) -> list[Instruction]:
    """A block that ends in a return, passed over for other calls."""
    return [(_EQUAL, 0, len(block), number), *block]


def _argument(index: int) -> Instruction:
    return (_LOAD_WORD, 0, 0, _ARGUMENTS + 8 * index)  # the low word: both are little-endian


def _refuse_if(test: int, index: int, value: int) -> list[Instruction]:
    return [
        _argument(index),
        (test, 0, 1, value),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]


def _refuse_unless_zero(index: int) -> list[Instruction]:
    return [
        _argument(index),
        (_EQUAL, 1, 0, 0),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]


def _only(families: tuple[int, ...]) -> list[Instruction]:
    lines = [_argument(0)]
    for family in families:
        lines += [(_EQUAL, 0, 1, int(family)), (_RETURN, 0, 0, _ALLOW)]
    return [*lines, (_RETURN, 0, 0, _ERRNO | errno.EPERM)]
