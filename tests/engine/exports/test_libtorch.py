from __future__ import annotations

import re
import shutil
import subprocess

import pytest
import torch

from engine.exports import libtorch
from engine.exports.request import ExportFailed
from tests.engine.exports.interfaces import EXAMPLES

FILES = ["CMakeLists.txt", "README.md", "example.pt", "main.cpp", "model.pt"]


@pytest.fixture
def no_compiler(monkeypatch):
    monkeypatch.setattr(libtorch.shutil, "which", lambda _: None)


@pytest.mark.parametrize("name", EXAMPLES)
def test_calls_of_every_kind_are_stored_in_their_types(asked, checked_here, no_compiler, name):
    checked_here(libtorch)
    request = asked(name)
    made = libtorch.write(request)
    assert sorted(file.name for file in made.path.iterdir()) == FILES
    assert made.path.joinpath("model.pt").read_bytes() == request.model.read_bytes()
    example = torch.jit.load(made.path / "example.pt")
    assert (example.calls, example.arguments) == (2, len(request.inputs))
    # Of the types that forward takes: it would refuse others.
    given = [getattr(example, f"input_{at}_1") for at in range(example.arguments)]
    torch.jit.load(request.model)(*given)
    assert example.tolerance == request.tolerance
    assert made.relative_error == 0
    assert made.batch_sizes == (2, 3)


def test_without_a_compiler_it_is_made_and_said(asked, no_compiler):
    made = libtorch.write(asked("detector"))
    assert made.notes == ("main.cpp was not built and not run: no C++ compiler here",)
    assert made.verified_by == f"torch {torch.__version__}, in Python"
    assert made.relative_error == 0


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """A C++ compiler that is a shell script, and no CMake."""

    def use(script: str):
        path = tmp_path / "c++"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        found = {"c++": str(path)}
        monkeypatch.setattr(libtorch.shutil, "which", found.get)

    return use


def test_sources_that_do_not_build_are_a_reason(asked, compiler):
    compiler("echo In file included; echo 'main.cpp:4:1: error: no std::span'; exit 1")
    with pytest.raises(ExportFailed, match=r"does not build here: main\.cpp:4:1: error: no std"):
        libtorch.write(asked("encoder"))


def test_a_program_that_does_not_start_is_a_reason(asked, compiler):
    compiler("echo '#!/bin/sh\necho cannot open libtorch.so' > example; chmod +x example")
    with pytest.raises(ExportFailed, match=r"does not run: cannot open libtorch\.so"):
        libtorch.write(asked("encoder"))


def test_a_build_has_the_time_that_is_left(asked, compiler, monkeypatch):
    compiler("exec sleep 60")
    monkeypatch.setattr(libtorch.time, "monotonic", iter([0.0, 249.9]).__next__)
    with pytest.raises(ExportFailed, match=r"`c\+\+` took more than what was left"):
        libtorch.write(asked("encoder"))


built = pytest.mark.skipif(
    shutil.which("c++") is None or shutil.which("cmake") is None, reason="no C++ compiler or CMake"
)


@built
@pytest.mark.exhaustive
def test_the_program_is_built_run_and_finds_what_differs(asked, monkeypatch):
    """One build: it takes a minute. The program is the same for every model."""
    kept = {}
    call = libtorch._Build._call

    def keep(self, command):
        done = call(self, command)
        program = self._build / "example"
        if program.is_file():
            shutil.copy(program, self._sources.parent / "example")
            kept["program"] = self._sources.parent / "example"
        return done

    monkeypatch.setattr(libtorch._Build, "_call", keep)
    request = asked("detector")
    made = libtorch.write(request)
    assert re.fullmatch(
        r"main.cpp, built by CMake and c\+\+ and run with LibTorch .* on CPU", made.verified_by
    )
    assert made.relative_error == 0
    assert made.notes == ()
    assert sorted(file.name for file in made.path.iterdir()) == FILES

    for name in EXAMPLES:
        folder = request.folder / name
        (folder / "made").mkdir(parents=True)
        model, inputs = EXAMPLES[name][0]().eval(), EXAMPLES[name][1]
        torch.jit.script(model).save(folder / "compact.pt")
        other = libtorch.ExportRequest("any", {}, folder / "compact.pt", folder / "made", inputs)
        with monkeypatch.context() as patch:
            patch.setattr(libtorch.shutil, "which", lambda _: None)
            written = libtorch.write(other).path
        status, printed = _run(kept["program"], written)
        assert (status, printed.startswith("2 calls, largest difference")) == (0, True), printed

        for parameter in model.parameters():
            parameter.data += 0.05
        torch.jit.script(model).save(written / "model.pt")
        status, printed = _run(kept["program"], written)
        assert status == 1, printed


def _run(program, folder) -> tuple[int, str]:
    done = subprocess.run(
        [program, folder], capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, done.stdout + done.stderr


@built
@pytest.mark.exhaustive
def test_where_cmake_does_not_take_the_torch_the_compiler_does(asked, monkeypatch):
    monkeypatch.setattr(libtorch.torch.utils, "cmake_prefix_path", "/nowhere")
    made = libtorch.write(asked("images"))
    assert made.verified_by.startswith("main.cpp, built by c++ and run with LibTorch")
    assert made.notes[0].startswith("CMake does not accept the torch that is installed here: ")
    assert made.relative_error == 0
