"""Numbers of system calls, and which of them no runner has a use for.

The numbers are those of `arch/x86/entry/syscalls/syscall_64.tbl` and `scripts/syscall.tbl` of
Linux; from 424 on they are the same everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

_TRACING = (
    "ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd", "perf_event_open",
    "userfaultfd", "bpf", "lookup_dcookie", "syslog", "acct",
)  # fmt: skip
_MOUNTS = (
    "mount", "umount2", "pivot_root", "chroot", "open_tree", "move_mount", "fsopen", "fsconfig",
    "fsmount", "fspick", "mount_setattr", "open_tree_attr", "quotactl", "quotactl_fd",
    "name_to_handle_at", "open_by_handle_at", "fanotify_init", "fanotify_mark", "swapon",
    "swapoff", "nfsservctl",
)  # fmt: skip
_NAMESPACES = ("unshare", "setns")
_KEYS = ("add_key", "request_key", "keyctl")
_MACHINE = (
    "kexec_load", "kexec_file_load", "create_module", "init_module", "finit_module",
    "delete_module", "reboot", "settimeofday", "clock_settime", "clock_adjtime", "adjtimex",
    "sethostname", "setdomainname", "iopl", "ioperm", "modify_ldt", "vhangup",
)  # fmt: skip
_UNSEEN = ("io_uring_setup", "io_uring_enter", "io_uring_register")
"""What it does is not seen by a filter."""
_LASTING = (
    "shmget", "shmat", "shmctl", "shmdt", "semget", "semop", "semctl", "semtimedop", "msgget",
    "msgsnd", "msgrcv", "msgctl", "mq_open", "mq_unlink",
)  # fmt: skip
"""Memory and queues that outlive a process and have names others know."""
_MEMORY_FILES = ("memfd_create", "memfd_secret")
"""Files that no quota of a folder counts."""


def refused(*, memory_files: bool) -> tuple[str, ...]:
    """Names of the calls that fail for every runner.

    Args:
        memory_files: whether files in memory may be made.
    """
    always = (*_TRACING, *_MOUNTS, *_NAMESPACES, *_KEYS, *_MACHINE, *_UNSEEN, *_LASTING)
    return always if memory_files else (*always, *_MEMORY_FILES)


@dataclass(frozen=True)
class Architecture:
    """One instruction set, as the kernel numbers its calls.

    Attributes:
        audit: `AUDIT_ARCH_...`.
        seccomp: number of `seccomp(2)`.
        numbers: of the calls that the filter looks at.
        has_x32: whether a second set of numbers lies above 0x40000000.
    """

    audit: int
    seccomp: int
    numbers: dict[str, int]
    has_x32: bool = False


_EVERYWHERE = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428,
    "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433,
    "clone3": 435, "pidfd_getfd": 438, "mount_setattr": 442, "quotactl_fd": 443,
    "memfd_secret": 447, "open_tree_attr": 467,
}  # fmt: skip

_X86_64 = {
    "ioctl": 16, "shmget": 29, "shmat": 30, "shmctl": 31, "socket": 41, "socketpair": 53,
    "clone": 56, "semget": 64, "semop": 65, "semctl": 66, "shmdt": 67, "msgget": 68, "msgsnd": 69,
    "msgrcv": 70, "msgctl": 71, "ptrace": 101, "syslog": 103, "vhangup": 153, "modify_ldt": 154,
    "pivot_root": 155, "adjtimex": 159, "chroot": 161, "acct": 163, "settimeofday": 164,
    "mount": 165, "umount2": 166, "swapon": 167, "swapoff": 168, "reboot": 169,
    "sethostname": 170, "setdomainname": 171, "iopl": 172, "ioperm": 173, "create_module": 174,
    "init_module": 175, "delete_module": 176, "quotactl": 179, "nfsservctl": 180,
    "lookup_dcookie": 212, "semtimedop": 220, "clock_settime": 227, "mq_open": 240,
    "mq_unlink": 241, "kexec_load": 246, "add_key": 248, "request_key": 249, "keyctl": 250,
    "unshare": 272, "perf_event_open": 298, "fanotify_init": 300, "fanotify_mark": 301,
    "prlimit64": 302, "name_to_handle_at": 303, "open_by_handle_at": 304, "clock_adjtime": 305,
    "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312,
    "finit_module": 313, "memfd_create": 319, "kexec_file_load": 320, "bpf": 321,
    "userfaultfd": 323,
}  # fmt: skip

_AARCH64 = {
    "lookup_dcookie": 18, "ioctl": 29, "umount2": 39, "mount": 40, "pivot_root": 41,
    "nfsservctl": 42, "chroot": 51, "vhangup": 58, "quotactl": 60, "acct": 89, "unshare": 97,
    "kexec_load": 104, "init_module": 105, "delete_module": 106, "clock_settime": 112,
    "syslog": 116, "ptrace": 117, "reboot": 142, "sethostname": 161, "setdomainname": 162,
    "settimeofday": 170, "adjtimex": 171, "mq_open": 180, "mq_unlink": 181, "msgget": 186,
    "msgctl": 187, "msgrcv": 188, "msgsnd": 189, "semget": 190, "semctl": 191, "semtimedop": 192,
    "semop": 193, "shmget": 194, "shmctl": 195, "shmat": 196, "shmdt": 197, "socket": 198,
    "socketpair": 199, "add_key": 217, "request_key": 218, "keyctl": 219, "clone": 220,
    "swapon": 224, "swapoff": 225, "perf_event_open": 241, "prlimit64": 261,
    "fanotify_init": 262, "fanotify_mark": 263, "name_to_handle_at": 264,
    "open_by_handle_at": 265, "clock_adjtime": 266, "setns": 268, "process_vm_readv": 270,
    "process_vm_writev": 271, "kcmp": 272, "finit_module": 273, "memfd_create": 279, "bpf": 280,
    "userfaultfd": 282, "kexec_file_load": 294,
}  # fmt: skip

ARCHITECTURES = {
    "x86_64": Architecture(0xC000003E, 317, _EVERYWHERE | _X86_64, has_x32=True),
    "aarch64": Architecture(0xC00000B7, 277, _EVERYWHERE | _AARCH64),
}
