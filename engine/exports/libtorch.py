"""A program in C++ that runs the model: sources, the model, and calls with their results.

Where a worker has a compiler, the program is built against the torch that is installed there and
run. CMake builds it as a user would; where CMake or its configuration of torch does not work (a
CUDA build of torch asks CMake for CUDA's compiler), the C++ compiler is called without it. Where
there is no compiler, what the program does is done in Python, and the report says so.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from engine.certify import relative_error
from engine.exports.fresh import run_fresh
from engine.exports.request import Exported, ExportFailed, ExportRequest
from engine.torchscript.stored_values import save_calls

_SOURCES = Path(__file__).with_name("libtorch_example")
_CHECK = Path(__file__).with_name("checks") / "libtorch.py"
_COMPILERS = ("c++", "g++", "clang++")
_PRINTED = re.compile(r"relative to the largest output: (\S+)")
_REASON = 1000


def write(request: ExportRequest) -> Exported:
    """Write the folder, build the program in another one, and run it.

    Raises:
        ExportFailed: the program does not build here, or does not run.
    """
    folder = request.folder / "libtorch"
    shutil.copytree(_SOURCES, folder)
    shutil.copyfile(request.model, folder / "model.pt")
    calls = [(case.inputs, case.expected) for case in request.cases]
    try:
        save_calls(
            folder / "example.pt", request.delivered, calls, {"tolerance": request.tolerance}
        )
    except RuntimeError as error:
        raise ExportFailed(
            f"the example cannot be stored as TorchScript: {str(error).splitlines()[0]}"
        ) from error
    compiler = next((path for name in _COMPILERS if (path := shutil.which(name))), None)
    if compiler is None:
        error_, verified = _compared_in_python(request, folder), _IN_PYTHON
        notes: tuple[str, ...] = ("main.cpp was not built and not run: no C++ compiler here",)
    else:
        built = _Build(folder, request.folder / "build", compiler, request.seconds)
        error_, verified, notes = built.run(), built.said, tuple(built.notes)
    return Exported(
        path=folder,
        verified_by=verified,
        relative_error=error_,
        tolerance=request.tolerance,
        batch_sizes=tuple(case.batch_size for case in request.cases),
        any_batch=len(request.cases) > 1,
        notes=notes,
    )


_IN_PYTHON = f"torch {torch.__version__}, in Python"


def _compared_in_python(request: ExportRequest, folder: Path) -> float:
    answers = request.folder / "answers.pt"
    run_fresh(_CHECK, folder, answers, seconds=request.seconds)
    found = torch.load(answers, weights_only=True)
    answers.unlink()
    return max(relative_error(expected, own) for expected, own in found)


class _Build:
    """The program, built in a folder of its own.

    Attributes:
        said: what built and ran it.
        notes: what did not work.
    """

    def __init__(self, sources: Path, build: Path, compiler: str, seconds: float) -> None:
        self._sources, self._build, self._compiler = sources, build, compiler
        self._deadline = time.monotonic() + seconds
        self.said = ""
        self.notes: list[str] = []

    def run(self) -> float:
        """The largest difference that the program prints.

        Raises:
            ExportFailed: it does not build, fails, or prints none.
        """
        self._build.mkdir()
        program = self._build / "example"
        by = f"CMake and {Path(self._compiler).name}" if self._with_cmake() else self._by_hand()
        self.said = f"main.cpp, built by {by} and run with LibTorch {torch.__version__} on CPU"
        done = self._call([str(program), str(self._sources)])
        shutil.rmtree(self._build)
        found = _PRINTED.search(done.stdout)
        if found is None:
            raise ExportFailed(f"main.cpp was built and does not run: {_end(done)}")
        return float(found.group(1))

    def _with_cmake(self) -> bool:
        cmake = shutil.which("cmake")
        if cmake is None:
            self.notes.append("CMakeLists.txt was not tried: no CMake here")
            return False
        configured = self._call(
            [
                *(cmake, "-S", str(self._sources), "-B", str(self._build)),
                f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}",
                f"-DCMAKE_CXX_COMPILER={self._compiler}",
            ]
        )
        if configured.returncode != 0:
            self.notes.append(
                f"CMake does not accept the torch that is installed here: {_end(configured)}"
            )
            return False
        self._must(self._call([cmake, "--build", str(self._build)]))
        return True

    def _by_hand(self) -> str:
        root = Path(torch.__file__).parent
        includes = [root / "include", root / "include" / "torch" / "csrc" / "api" / "include"]
        self._must(
            self._call(
                [
                    *(self._compiler, "-std=c++20", "-O0"),
                    f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
                    *(f"-I{folder}" for folder in includes),
                    str(self._sources / "main.cpp"),
                    *("-o", str(self._build / "example"), f"-L{root / 'lib'}"),
                    f"-Wl,-rpath,{root / 'lib'}",
                    *("-Wl,--no-as-needed", "-ltorch", "-ltorch_cpu", "-lc10"),
                ]
            )
        )
        return Path(self._compiler).name

    def _must(self, done: subprocess.CompletedProcess[str]) -> None:
        if done.returncode != 0:
            raise ExportFailed(
                f"main.cpp does not build here: {_end(done)}",
                hint="the worker needs a C++20 compiler that takes the headers of its torch",
            )

    def _call(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        left = self._deadline - time.monotonic()
        try:
            return subprocess.run(
                command,
                cwd=self._build,
                env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=max(left, 0.1),
                check=False,
                text=True,
                errors="replace",
            )
        except subprocess.TimeoutExpired as error:
            raise ExportFailed(
                f"`{Path(command[0]).name}` took more than what was left of the time limit"
            ) from error


def _end(done: subprocess.CompletedProcess[str]) -> str:
    """What a program says of its failure: its first line with an error, or its last one."""
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    told = next((line for line in lines if re.search(r"\berror\b", line, re.IGNORECASE)), "")
    return (told or (lines[-1] if lines else f"it ended with status {done.returncode}"))[:_REASON]
