"""The gate every uploaded model passes before it is a model: is this TorchScript, is it whole, and
does its code keep to computing?

Nothing is loaded here and torch is not imported. What only loading can tell, the `inspect` job
finds out in the runner.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from secateur.resources import FieldProblem

from service.models.operators import CodeUnreadable, Finding, refused_operators
from service.problems import ProblemError
from service.uploads.zip_check import (
    ZipLimits,
    ZipRefused,
    check_content,
    checked_zip,
    starts_like_zip,
)

_SAVE = (
    "Make one with `torch.jit.script(model).save(path)` or `torch.jit.trace(model, x).save(path)`."
)
_MAX_CODE_BYTES = 4 * 2**20
_MAX_FINDINGS = 50
_REQUIRED = ("data.pkl", "constants.pkl", "version")


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
                for one in findings[:_MAX_FINDINGS]
            ],
        )


def check_archive(path: Path, limits: ZipLimits) -> None:
    """Let the file through or say why not.

    Raises:
        NotTorchScript: it is no zip, or not with TorchScript's layout.
        ArchiveRefused: damaged, too large unpacked, or ambiguous.
        OperatorRefused: its code calls operators that reach outside the model.
    """
    if not starts_like_zip(path):
        raise NotTorchScript(_what_it_seems(path), hint=_SAVE)
    try:
        with checked_zip(path, limits) as archive:
            root = _root(archive)
            check_content(archive)
            _check_code(archive, root)
    except ZipRefused as error:
        raise ArchiveRefused(error.reason, hint=error.hint or _SAVE) from error


def _what_it_seems(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(2)
    if start[:1] == b"\x80":
        return "The file is a pickle, as `torch.save` of old wrote it; it holds no program."
    return "The file is not a zip archive, which every TorchScript file is."


def _root(archive: zipfile.ZipFile) -> str:
    """The one folder everything lies in."""
    names = archive.namelist()
    roots = {name.split("/", 1)[0] for name in names if "/" in name}
    if len(roots) != 1 or any("/" not in name for name in names):
        raise NotTorchScript(
            "The archive does not hold everything in one folder, as TorchScript files do.",
            hint=_SAVE,
        )
    root = roots.pop()
    present = set(names)
    has_code = any(name.startswith(f"{root}/code/") and name.endswith(".py") for name in names)
    if f"{root}/data.pkl" in present and not has_code:
        raise NotTorchScript(
            "The file was written by `torch.save`: it holds weights or a pickled module, but no "
            "program.",
            hint=_SAVE,
        )
    missing = [name for name in _REQUIRED if f"{root}/{name}" not in present]
    if not has_code:
        missing.append("code/")
    if missing:
        raise NotTorchScript(
            f"The archive has no `{root}/{missing[0]}`, which every TorchScript file has.",
            hint=_SAVE,
        )
    return root


def _check_code(archive: zipfile.ZipFile, root: str) -> None:
    findings: list[Finding] = []
    for entry in archive.infolist():
        if not entry.filename.startswith(f"{root}/code/") or not entry.filename.endswith(".py"):
            continue
        if entry.file_size > _MAX_CODE_BYTES:
            raise ArchiveRefused(
                f"The code file `{entry.filename}` has {entry.file_size} bytes; "
                f"{_MAX_CODE_BYTES} are allowed.",
                hint="Keep large constants in parameters or buffers, not in code.",
            )
        try:
            source = archive.read(entry).decode("utf-8")
            findings += refused_operators(source, entry.filename)
        except (UnicodeDecodeError, CodeUnreadable) as error:
            raise ArchiveRefused(
                f"The code file `{entry.filename}` cannot be parsed: {error}.", hint=_SAVE
            ) from error
    if findings:
        raise OperatorRefused(findings)
