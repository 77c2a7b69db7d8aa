"""Which level this worker's runners are contained in: the best one that the machine allows.

`required` is met by both `full` and `kernel`: in either a runner reads and writes nothing but its
own and reaches no socket, which the self-test has tried. See
docs/decisions/0123-what-a-runner-is-contained-by.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from workers.sandbox import bubblewrap, landlock, seccomp
from workers.sandbox.launch import Level, NotContained
from workers.sandbox.self_test import attempt

Mode = Literal["required", "best_effort", "off"]

_ESSENTIAL = ("read", "write", "tcp", "udp", "unix_socket", "abstract_socket", "environment")
_NAMESPACES = (
    "user namespaces must be allowed: sysctl user.max_user_namespaces above 0, and on Ubuntu "
    "kernel.apparmor_restrict_unprivileged_userns=0 or an AppArmor profile for bwrap; in Docker "
    "--security-opt seccomp=unconfined --security-opt apparmor=unconfined "
    "--security-opt systempaths=unconfined"
)


class Uncontained(Exception):
    """No level meets `required` here; the text says what is missing and how to get it."""


@dataclass(frozen=True)
class Containment:
    """What runners of this worker are contained by.

    Attributes:
        level: in use.
        refused: what the self-test tried in it, and whether it was refused.
        missing: why better levels are not in use.
    """

    level: Level
    refused: dict[str, bool] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    @property
    def contained(self) -> bool:
        """Whether files and network are closed to runners."""
        return meets_required(self.refused)

    def as_json(self) -> dict[str, Any]:
        """For the table of workers: no paths and nothing else of the machine."""
        return {
            "level": self.level,
            "contained": self.contained,
            "landlock_abi": landlock.abi() if self.level != "limits" else 0,
            "refused": self.refused,
        }


def meets_required(refused: dict[str, bool]) -> bool:
    """Whether every essential attempt was made and refused."""
    return all(refused.get(name, False) for name in _ESSENTIAL)


@lru_cache
def contain(mode: Mode) -> Containment:
    """The best level of this machine under a mode; tried once per process.

    Raises:
        Uncontained: `required`, and neither level comes about.
    """
    if mode == "off":
        return Containment("limits", missing=("SECATEUR_SANDBOX=off",))
    missing: list[str] = []
    levels: tuple[Level, Level] = ("full", "kernel")
    for level in levels:
        reason = _absent(level)
        if reason is None:
            try:
                refused = attempt(level)
            except NotContained as fault:
                hint = f"; {_NAMESPACES}" if level == "full" else ""
                reason = f"{fault}{hint}"
            else:
                if meets_required(refused):
                    return Containment(level, refused, tuple(missing))
                open_ = ", ".join(name for name in _ESSENTIAL if not refused.get(name, False))
                reason = f"the self-test got through: {open_}"
        missing.append(f"{level}: {reason}")
    if mode == "required":
        raise Uncontained(
            "runners cannot be contained on this machine, and SECATEUR_SANDBOX is `required`.\n  "
            + "\n  ".join(missing)
            + "\nOne of the two is enough. SECATEUR_SANDBOX=best_effort runs jobs with limits "
            "only; do that only where every upload is trusted."
        )
    return Containment("limits", missing=tuple(missing))


def _absent(level: Level) -> str | None:
    """What a level needs and this machine has not, as far as it can be seen without trying."""
    if not seccomp.supported():
        return "seccomp filters are written for Linux on x86_64 and aarch64 only"
    if landlock.abi() < 1:
        return (
            "the kernel offers no Landlock: Linux 5.13 or newer, booted with `landlock` in its "
            "list of security modules (lsm=landlock,...), in a container whose seccomp profile "
            "lets landlock calls through"
        )
    if level == "full" and bubblewrap.find() is None:
        return "bubblewrap is not installed: apt-get install bubblewrap"
    return None
