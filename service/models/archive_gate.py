"""The gate every uploaded model passes before it is a model: is this TorchScript, is it whole, and
does its code keep to computing?

Nothing is loaded here and torch is not imported. What only loading can tell, the `inspect` job
finds out in the runner. Neither the job nor anybody else ever gets the uploaded file: the gate
writes a copy of what it has checked (`canonical_archive`), and that is kept.
"""

from __future__ import annotations

import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

from secateur.resources import FieldProblem

from service.models.canonical_archive import write_archive
from service.models.operators import MAX_FINDINGS, Finding
from service.models.program import VERSIONS, ProgramRefused, read_program
from service.problems import ProblemError
from service.uploads.zip_check import (
    ZipLimits,
    ZipRefused,
    checked_zip,
    starts_like_zip,
)

_SAVE = (
    "Make one with `torch.jit.script(model).save(path)` or `torch.jit.trace(model, x).save(path)`."
)
_REQUIRED = ("data.pkl", "constants.pkl")


class NotTorchScript(ProblemError):
    """The file is something else."""

    status = 422
    type = "not-torchscript"
    title = "The file is not a TorchScript model"


class ArchiveRefused(ProblemError):
    """A TorchScript archive that breaks a rule."""

    status = 422
    type = "archive-refused"
    title = "The archive is damaged or breaks a rule"


class OperatorRefused(ProblemError):
    """The model's code calls what a model has no business calling."""

    status = 422
    type = "operator-refused"
    title = "The model's code uses operators that are not allowed"

    def __init__(self, findings: list[Finding]) -> None:
        first = findings[0]
        super().__init__(
            f"`{first.operator}` at {first.file}, line {first.line}, {first.reason}.",
            hint="Take the call out of the model's source, script or trace it again, and upload "
            "that. A method of your own that is called `save` or `from_file` needs another name.",
            errors=[
                FieldProblem(
                    field=f"{one.file}:{one.line}",
                    message=f"`{one.operator}` {one.reason}.",
                )
                for one in findings[:MAX_FINDINGS]
            ],
        )


def check_archive(
    path: Path, limits: ZipLimits, write: Callable[[bytes], object] | None = None
) -> None:
    """Let the file through or say why not.

    Args:
        path: the file.
        limits: of the archive, and of its tensors written out.
        write: takes the bytes of the checked copy, in order; if this raises, what it took so far
            is worth nothing.

    Raises:
        NotTorchScript: it is no zip, or not with TorchScript's layout.
        ArchiveRefused: damaged, too large unpacked, or ambiguous.
        OperatorRefused: its code calls operators that a model may not use.
    """
    if not starts_like_zip(path):
        raise NotTorchScript(_what_it_seems(path), hint=_SAVE)
    try:
        with checked_zip(path, limits) as archive:
            entries = _below_root(archive)
            program = read_program(archive, entries, limits.unpacked_bytes)
            if program.findings:
                raise OperatorRefused(list(program.findings))
            write_archive(archive, program.records, write or (lambda _: None))
    except ZipRefused as error:
        raise ArchiveRefused(error.reason, hint=error.hint or _SAVE) from error
    except ProgramRefused as error:
        raise ArchiveRefused(error.reason, hint=error.hint or _SAVE) from error


def _what_it_seems(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(2)
    if start[:1] == b"\x80":
        return "The file is a pickle, as `torch.save` of old wrote it; it holds no program."
    return "The file is not a zip archive, which every TorchScript file is."


def _below_root(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The entries by their names below the one folder everything lies in."""
    names = archive.namelist()
    roots = {name.split("/", 1)[0] for name in names if "/" in name}
    if len(roots) != 1 or any("/" not in name for name in names):
        raise NotTorchScript(
            "The archive does not hold everything in one folder, as TorchScript files do.",
            hint=_SAVE,
        )
    root = roots.pop()
    _check_unique(names)
    entries = {
        entry.filename.removeprefix(f"{root}/"): entry
        for entry in archive.infolist()
        if not entry.is_dir()
    }
    has_code = any(name.startswith("code/") and name.endswith(".py") for name in entries)
    if "data.pkl" in entries and not has_code:
        raise NotTorchScript(
            "The file was written by `torch.save`: it holds weights or a pickled module, but no "
            "program.",
            hint=_SAVE,
        )
    missing = [name for name in _REQUIRED if name not in entries]
    if not any(name in entries for name in VERSIONS):
        missing.append("version")
    if not has_code:
        missing.append("code/")
    if missing:
        raise NotTorchScript(
            f"The archive has no `{root}/{missing[0]}`, which every TorchScript file has.",
            hint=_SAVE,
        )
    return entries


def _check_unique(names: list[str]) -> None:
    """torch's reader ignores the case of names: two that differ in it are one to it."""
    seen: dict[str, str] = {}
    for name in names:
        folded = unicodedata.normalize("NFKC", name).casefold()
        other = seen.setdefault(folded, name)
        if other != name:
            raise ArchiveRefused(
                f"The archive has the entries `{other}` and `{name}`, which torch takes for one.",
                hint="Rename one of the two modules or classes and save the model again.",
            )
