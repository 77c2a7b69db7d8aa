"""The files a runner needs, and no others."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

_PACKAGES = ("engine", "persistence", "reporting", "secateur", "workers")
"""What the runner imports of this project; installed, editable or beside the working tree."""
_SITE = {"site-packages", "dist-packages"}

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
# the dynamic linker's, the compiler's (alternatives), the time zone and fonts: nothing of a user
_CONFIGURATION = (
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/alternatives",
    "/etc/localtime",
    "/etc/fonts",
    "/etc/OpenCL/vendors",
    "/etc/vulkan",
)
_MACHINE = ("/sys/devices/system/cpu", "/sys/devices/system/node")
_MACHINE_OF_GPU = ("/sys",)

PROCESS_FACTS = (
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/filesystems",
    "/proc/version",
    "/proc/sys/kernel",
    "/proc/sys/vm",
    "/proc/driver/nvidia",
)
"""Of `/proc`, where it is the machine's: what speaks of no process."""

DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_GPU_DEVICES = ("nvidia*", "dri", "kfd")


class ForeignFolder(Exception):
    """A folder with data lies inside one that runners read."""


def needed(command: Sequence[str], *, gpu: bool, further: Iterable[Path] = ()) -> list[str]:
    """Everything a runner of this installation reads, as existing absolute paths.

    Args:
        command: the runner's; files it names are read, too.
        gpu: whether it uses one.
        further: that the operator adds.
    """
    machine = _MACHINE_OF_GPU if gpu else _MACHINE
    wanted = [*_SYSTEM, *_CONFIGURATION, *machine, *_installation(), *map(str, further)]
    wanted += [part for part in command if part.startswith("/")]
    for name in ("LD_LIBRARY_PATH", "CUDA_HOME"):
        wanted += [part for part in os.environ.get(name, "").split(":") if part.startswith("/")]
    return _without_inner(path for path in wanted if Path(path).exists())


def import_folders() -> list[str]:
    """Folders that this project's packages lie in: an import looks through their entries."""
    found = _package_folders()
    return sorted({str(Path(path).parent) for path in [*found, *map(os.path.realpath, found)]})


def gpu_devices() -> list[str]:
    """Device files of all GPUs; which of them is used, the environment says."""
    return sorted(str(path) for name in _GPU_DEVICES for path in Path("/dev").glob(name))


def check_apart(folders: Iterable[Path], read: Iterable[str]) -> None:
    """That no folder with data is among what runners read.

    Raises:
        ForeignFolder: one is; it says which.
    """
    for folder in folders:
        for path in read:
            if folder.resolve().is_relative_to(Path(path).resolve()):
                raise ForeignFolder(
                    f"{folder} lies inside {path}, which runners must be able to read"
                )


@lru_cache
def _installation() -> tuple[str, ...]:
    """The interpreter, the libraries and this project's packages, by every name they go by."""
    found = [sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix]
    link = Path(sys.executable)
    for _ in range(20):  # a virtual environment's link to a link to the interpreter
        found.append(str(link))
        if not link.is_symlink():
            break
        link = link.parent / link.readlink()
    found += [entry for entry in sys.path if _SITE & set(Path(entry).parts)]
    found += _package_folders()
    return tuple(dict.fromkeys([*map(os.path.abspath, found), *map(os.path.realpath, found)]))


@lru_cache
def _package_folders() -> tuple[str, ...]:
    specs = [importlib.util.find_spec(name) for name in _PACKAGES]
    places = [spec.submodule_search_locations or [] for spec in specs if spec is not None]
    return tuple(str(Path(place).absolute()) for listed in places for place in listed)


def _without_inner(paths: Iterable[str]) -> list[str]:
    """The paths without those below another; each once, outer ones first."""
    kept: list[str] = []
    for path in sorted(set(paths), key=lambda one: (one.count("/"), one)):
        # a link is no folder whose inside could stand for others
        if not any(Path(path).is_relative_to(k) and not Path(k).is_symlink() for k in kept):
            kept.append(path)
    return kept
