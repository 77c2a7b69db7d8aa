"""An AOTInductor package: the model compiled to a library, for torch's C++ and Python runtimes.

Compiled is the ExportedProgram that `engine.exports.pt2_file` makes, by the C++ compiler of the
worker and for its processor. What fails there fails here.
"""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from engine.certify import relative_error
from engine.exports import pt2_file
from engine.exports.fresh import run_fresh
from engine.exports.request import Case, Exported, ExportFailed, ExportRequest

_RUN = Path(__file__).with_name("checks") / "aot_inductor.py"
_COMPILERS = ("c++", "g++", "clang++")


def write(request: ExportRequest) -> Exported:
    """Convert, compile, and run the package in a fresh process.

    Raises:
        ExportFailed: there is no compiler, the graph cannot be converted or compiled, or the
            package does not run.
    """
    started = time.monotonic()
    if not any(map(shutil.which, _COMPILERS)):
        raise ExportFailed("AOTInductor compiles with a C++ compiler, and this worker has none")
    converted = request.folder / "converted"
    converted.mkdir()
    options = {"dynamic_batch": None}
    made = pt2_file.write(replace(request, folder=converted, options=options))
    _, cases, _ = pt2_file.given(request)
    ran = [case for case in cases if case.batch_size in made.batch_sizes]
    path = request.folder / "compact.aoti.pt2"
    _compile(made.path, path, request.folder / "cache")
    left = request.seconds - (time.monotonic() - started)
    found = _run(request, path, ran, max(left, 1.0))
    return Exported(
        path=path,
        verified_by=f"AOTInductor of torch {torch.__version__}, loaded in a fresh process here",
        relative_error=max(
            relative_error(_in_lists(case.expected), _in_lists(own))
            for case, own in zip(ran, found, strict=True)
        ),
        tolerance=request.tolerance,
        batch_sizes=made.batch_sizes,
        any_batch=made.any_batch,
        notes=(*made.notes, _tie()),
    )


def _compile(source: Path, target: Path, cache: Path) -> None:
    # Nothing stays behind, and nothing of an earlier export is taken over.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache)
    # Imported when it is needed: it is slow to load.
    import torch._inductor  # noqa: PLC0415

    program = torch.export.load(source)
    try:
        torch._inductor.aoti_compile_and_package(
            program,
            package_path=str(target),
            inductor_configs={"compile_threads": 1},
        )
    except Exception as error:
        # The compiler raises whatever its passes raise.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        # The compiler's own words, where there are some.
        said = next((line for line in lines if "error: " in line), lines[0] if lines else "")
        raise ExportFailed(
            f"AOTInductor cannot compile it: {said[:500] or type(error).__name__}"
        ) from error


def _in_lists(value: Any) -> Any:
    """The same with lists for tuples: the runtime gives one where the model gives the other."""
    if isinstance(value, dict):
        return {key: _in_lists(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_in_lists(item) for item in value]
    return value


def _tie() -> str:
    kind = torch.backends.cpu.get_cpu_capability()
    return (
        f"compiled for {platform.system()} on {platform.machine()} with {kind}: it runs on "
        f"processors that have these instructions, on a CPU, with torch {torch.__version__}"
    )


def _run(request: ExportRequest, path: Path, cases: Sequence[Case], seconds: float) -> list[Any]:
    """What the package gives for every case in a fresh process."""
    given, found = request.folder / "given.pt", request.folder / "found.pt"
    torch.save([list(case.inputs) for case in cases], given)
    run_fresh(_RUN, path, given, found, seconds=seconds)
    outputs: list[Any] = torch.load(found, weights_only=True)
    given.unlink()
    found.unlink()
    return outputs
