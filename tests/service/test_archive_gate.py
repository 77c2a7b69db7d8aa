"""What passes the gate of uploaded models, and what does not: real files of real attacks."""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from service.models.archive_gate import (
    ArchiveRefused,
    NotTorchScript,
    OperatorRefused,
    check_archive,
)
from service.models.code_syntax import CodeUnreadable
from service.models.operators import defined_methods, refused_operators
from service.uploads.zip_check import ZipLimits, checked_zip
from tests.service.conftest import TinyNet, scripted

LIMITS = ZipLimits(entries=1000, ratio=200, unpacked_bytes=2**30)
Entries = list[tuple[str, bytes]]


def gate(tmp_path: Path, content: bytes, limits: ZipLimits = LIMITS) -> None:
    path = tmp_path / "upload"
    path.write_bytes(content)
    check_archive(path, limits)


def rewritten(content: bytes, change: Callable[[Entries], Entries], **options: int) -> bytes:
    """The archive with its entries changed."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w", **options) as archive:
        warnings.simplefilter("ignore")  # duplicate names are the point of one test
        for name, data in change(entries):
            archive.writestr(name, data)
    return out.getvalue()


@torch.jit.script
def save_in_a_function(x: torch.Tensor) -> torch.Tensor:
    torch.save([x], "/tmp/stolen.pt")  # noqa: S108
    return x


class Saves(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return save_in_a_function(x)


class Maps(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_file("/etc/passwd", shared=True, size=10)


class SavesWhenLoaded(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    @torch.jit.export
    def __getstate__(self) -> tuple[torch.Tensor, bool]:
        return self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]) -> None:
        torch.save(state[0], "/tmp/stolen.pt")  # noqa: S108
        self.weight = state[0]
        self.training = state[1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight


@pytest.mark.parametrize(
    ("module", "operator"),
    [(Saves(), "torch.save"), (Maps(), "torch.from_file"), (SavesWhenLoaded(), "torch.save")],
)
def test_code_that_touches_files_is_refused(
    tmp_path: Path, module: torch.nn.Module, operator: str
) -> None:
    content = scripted(module)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        [(name, lines)] = [
            (name, archive.read(name).decode().splitlines())
            for name in archive.namelist()
            if name.endswith(".py") and operator in archive.read(name).decode()
        ]
    line = next(n for n, text in enumerate(lines, 1) if operator in text)
    with pytest.raises(OperatorRefused) as refused:
        gate(tmp_path, content)
    [error] = refused.value.errors
    assert error.field == f"{name}:{line}"
    assert f"`{operator}`" in error.message


@pytest.mark.parametrize(
    ("line", "operator"),
    [
        ("ops.aten.save(x, 'f')", "ops.aten.save"),
        ("ops.aten.from_file('f', True, 1)", "ops.aten.from_file"),
        ("torch.save(x, 'f')", "torch.save"),
        ("(x).save('f')", "x.save"),
        ("f = x.save", "x.save"),
        ("f = torch.save\n  f(x, 'f')", "torch.save"),
        ("x = fork(g, x)", "fork"),
        ("ops.prim.fork(x)", "ops.prim.fork"),
        ("(x).wait()", "x.wait"),
        ("id(x)", "id"),
        ("torch.manual_seed(1)", "torch.manual_seed"),
        ("torch._reshape_alias(x, [1], [9])", "torch._reshape_alias"),
        ("(x)._reshape_alias([1], [9])", "x._reshape_alias"),
        ("torch.of_tomorrow(x)", "torch.of_tomorrow"),
        ("(x).of_tomorrow()", "x.of_tomorrow"),
        ("of_tomorrow(x)", "of_tomorrow"),
        ("range = x.add_\n  range(x)", "range"),
        ("(getattr(x, 'add_'))(x)", "getattr(x, 'add_')"),
        ("y = ops.aten", "ops.aten"),
        ("ops.mkldnn.data_ptr(x)", "ops.mkldnn.data_ptr"),
        ("ops.prims.as_strided(x, [1], [1], 0)", "ops.prims.as_strided"),
        ("print(__torch__.torch.classes.c10d.Store)", "__torch__.torch.classes.c10d.Store"),
        ("getattr(x, 'save')('f')", "getattr(..., 'save')"),
        ("(\n    torch.\n    save)(x, 'f')", "torch.save"),
        ("ops.image.read_file('f')", "ops.image.read_file"),
        ("ops.c10d.barrier()", "ops.c10d.barrier"),
        ("ops.debugprims.load_tensor('f')", "ops.debugprims.load_tensor"),
        ("rpc_sync('worker', x)", "rpc_sync"),
        (
            "annotate(__torch__.torch.classes.dist_rpc.WorkerInfo, x)",
            "__torch__.torch.classes.dist_rpc.WorkerInfo",
        ),
    ],
)
def test_every_way_to_name_an_operator_is_seen(
    tmp_path: Path, model_file: bytes, line: str, operator: str
) -> None:
    def attack(entries: Entries) -> Entries:
        target = next(name for name, _ in entries if name.endswith(".py"))
        code = f"def f(x: Tensor):\n  {line}\n".encode()
        return [(name, data + code if name == target else data) for name, data in entries]

    with pytest.raises(OperatorRefused) as refused:
        gate(tmp_path, rewritten(model_file, attack))
    assert refused.value.errors[0].message.startswith(f"`{operator}` ")


@pytest.mark.parametrize(
    "line",
    [
        "y = ops.aten.add(x, x)\n  z = ops.quantized.linear(x, w)",
        "r = ops.torchvision.nms(b, s, 0.5)",
        "t : __torch__.torch.classes.quantized.LinearPackedParamsBase",
        "m = 'saved in from_file format; torch.save(x)'\n  self.saved = torch.relu(x)",
        "_0 = __torch__.a.f\n  y = _0(x, )",
        "y = (self.layer).own(x, )",
        "y = (getattr(self.layers, '0')).forward(x, )",
        'print("\\n\\303\\251\\"")',
    ],
)
def test_computing_code_has_no_findings(line: str) -> None:
    source = f"class A(Module):\n  def own(self, x):\n    pass\ndef f(x):\n  {line}\n"
    methods = frozenset(defined_methods(source)) | {"forward"}
    assert refused_operators(source, "code/a.py", methods) == []


def inside(line: str) -> str:
    return f"def f(x):\n  {line}\n"


@pytest.mark.parametrize(
    "source",
    [
        "def f(:\n",
        "x = '\0'",
        inside("(" * 3000 + ")" * 3000),
        inside("-" * 100_000 + "1"),
        inside("x" + "+x" * 100_000),
        inside("x = " + "y.a" * 300_000),
        inside("pass " * 1000),
        "".join(" " * depth + "if x:\n" for depth in range(120)),
        *(
            inside(line)
            for line in (
                *('y = """a"""', "y = f'{x}'", "y = r'a'", "y = b'a'", "y = '\\x41'", "y = '\\\n'"),
                *("y = x # type: int", "y = 1; z = 2", "y\t= 1", "y = x \\\n", "y = `x`", "y = é"),
                *("y = lambda: x", "y = [z for z in x]", "y = (z := x)", "import os", "yield x"),
                *("def g(): pass", "class G: pass", "global y", "try:\n    x\n  except: pass"),
                *("y = torch", "y = ops", "torch = x", "ops = x", "__torch__ = x", "fork = x"),
                *(
                    "y = getattr(x, y)",
                    "for torch in x: pass",
                    "y = x @ x",
                    "match x:\n    case 1: x",
                ),
            )
        ),
        "@torch.jit.ignore\n" + inside("pass"),
        "x = 1\n",
        "def f(*x):\n  pass\n",
        "def f(torch):\n  pass\n",
        "class A(Module):\n  save()\n",
        "class A(Module, metaclass=B):\n  pass\n",
        "if x:\n  pass\n",
        " x",
    ],
)
def test_code_that_torch_does_not_write_is_refused(source: str) -> None:
    with pytest.raises(CodeUnreadable, match=r"^line \d+: "):
        refused_operators(source, "code/a.py")


class Branches(torch.nn.Module):
    """Much of what serialised code can look like."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(4, 4)
        self.norm = torch.nn.BatchNorm1d(4)
        self.named = torch.nn.ModuleDict({"a": torch.nn.Linear(4, 4)})

    def forward(self, x: torch.Tensor, scale: float = float("inf")) -> dict[str, torch.Tensor]:
        out: dict[str, torch.Tensor] = {}
        for step in range(3):
            if step % 2 == 0:
                assert x.dim() == 3, f"three dimensions, not {x.dim()}"
                x = self.lstm(x)[0]
            else:
                with torch.no_grad():
                    x = self.norm(x.flatten(0, 1)).view(x.shape)
        for name, layer in self.named.items():
            out[name] = layer(x).clamp(max=scale)
        return out


def test_models_of_every_kind_pass(tmp_path: Path) -> None:
    gate(tmp_path, scripted(TinyNet()))
    gate(tmp_path, scripted(Branches()))
    traced = io.BytesIO()
    encoder = torch.nn.TransformerEncoderLayer(8, 2, 16)
    torch.jit.save(torch.jit.trace(encoder, torch.zeros(2, 3, 8)), traced)
    gate(tmp_path, traced.getvalue())
    quantized = torch.ao.quantization.quantize_dynamic(
        torch.nn.Sequential(torch.nn.Linear(4, 4)), dtype=torch.qint8
    )
    gate(tmp_path, scripted(quantized))
    frozen = io.BytesIO()
    torch.jit.save(torch.jit.freeze(torch.jit.script(TinyNet()).eval()), frozen)
    gate(tmp_path, frozen.getvalue())
    # torch writes the version of the file to another place where late operators are used
    gelu = scripted(torch.nn.Sequential(torch.nn.GELU()))
    assert b"/.data/version" in gelu
    gate(tmp_path, gelu)


def test_files_that_are_no_torchscript(tmp_path: Path) -> None:
    state = io.BytesIO()
    torch.save(TinyNet().state_dict(), state)
    legacy = io.BytesIO()
    torch.save({}, legacy, _use_new_zipfile_serialization=False)
    plain = io.BytesIO()
    with zipfile.ZipFile(plain, "w") as archive:
        archive.writestr("readme.txt", "hello")
    for content, words in [
        (state.getvalue(), "written by `torch.save`"),
        (legacy.getvalue(), "pickle"),
        (pickle.dumps({}), "pickle"),
        (b"not a model at all", "not a zip"),
        (b"", "not a zip"),
        (plain.getvalue(), "in one folder"),
    ]:
        with pytest.raises(NotTorchScript, match=words) as refused:
            gate(tmp_path, content)
        assert "torch.jit.script" in refused.value.hint


@pytest.mark.parametrize("part", ["data.pkl", "constants.pkl", "version"])
def test_a_missing_part_is_named(tmp_path: Path, model_file: bytes, part: str) -> None:
    content = rewritten(
        model_file, lambda entries: [one for one in entries if not one[0].endswith(f"/{part}")]
    )
    with pytest.raises(NotTorchScript, match=part):
        gate(tmp_path, content)


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_cut_off_file_is_refused(tmp_path: Path, model_file: bytes, share: float) -> None:
    with pytest.raises(ArchiveRefused, match="cannot be read"):
        gate(tmp_path, model_file[: int(len(model_file) * share)])


def test_a_changed_byte_is_found_and_its_entry_named(tmp_path: Path, model_file: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(model_file)) as archive:
        entry = next(one for one in archive.infolist() if one.filename.endswith("data/0"))
        weights = archive.read(entry)
    position = model_file.index(weights)
    damaged = bytearray(model_file)
    damaged[position] ^= 0xFF
    with pytest.raises(ArchiveRefused, match="data/0` is damaged"):
        gate(tmp_path, bytes(damaged))


def with_extra(name: str, data: bytes = b"x") -> Callable[[Entries], Entries]:
    return lambda entries: [*entries, (name, data)]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/etc/passwd", "outside|one folder"),
        ("model/../../x", "outside|one folder"),
        ("..\\x", "characters"),
        ("C:x/y", "outside"),
    ],
)
def test_names_that_point_elsewhere_are_refused(
    tmp_path: Path, model_file: bytes, name: str, words: str
) -> None:
    with pytest.raises((ArchiveRefused, NotTorchScript), match=words):
        gate(tmp_path, rewritten(model_file, with_extra(name)))


def test_the_same_name_twice_is_refused(tmp_path: Path, model_file: bytes) -> None:
    with pytest.raises(ArchiveRefused, match="twice"):
        gate(tmp_path, rewritten(model_file, lambda entries: [*entries, entries[0]]))


def test_a_zip_bomb_is_refused_without_being_unpacked(tmp_path: Path, model_file: bytes) -> None:
    root = zipfile.ZipFile(io.BytesIO(model_file)).namelist()[0].split("/")[0]
    bomb = rewritten(
        model_file,
        with_extra(f"{root}/data/9", bytes(30 * 2**20)),
        compression=zipfile.ZIP_DEFLATED,
    )
    with pytest.raises(ArchiveRefused, match="times as much"):
        gate(tmp_path, bomb)
    with pytest.raises(ArchiveRefused, match="unpacks to"):
        gate(tmp_path, bomb, ZipLimits(entries=1000, ratio=1e9, unpacked_bytes=2**20))
    with pytest.raises(ArchiveRefused, match="entries"):
        gate(tmp_path, model_file, ZipLimits(entries=3, ratio=200, unpacked_bytes=2**30))


def test_what_two_readers_could_read_differently_is_refused(
    tmp_path: Path, model_file: bytes
) -> None:
    with pytest.raises(NotTorchScript, match="not a zip"):
        gate(tmp_path, b"other file" + model_file)
    for comment in (b"hello", b"PK\x05\x06" + bytes(18)):
        commented = io.BytesIO(model_file)
        with zipfile.ZipFile(commented, "a") as archive:
            archive.comment = comment
        with pytest.raises(ArchiveRefused, match=r"behind its end|not where"):
            gate(tmp_path, commented.getvalue())
    # Python would shift the offsets and read the second archive, torch would not
    with pytest.raises(ArchiveRefused, match="not where"):
        gate(tmp_path, model_file + model_file)
    shifted = bytearray(model_file)
    offset = int.from_bytes(shifted[-6:-2], "little")
    shifted[-6:-2] = (offset - 4).to_bytes(4, "little")
    with pytest.raises(ArchiveRefused):
        gate(tmp_path, bytes(shifted))


def test_a_large_archive_has_its_directory_in_the_large_record(tmp_path: Path) -> None:
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(70_000):
            archive.writestr(f"a/{number}", b"")
    limits = ZipLimits(entries=100_000, ratio=200, unpacked_bytes=2**30)
    with checked_zip(path, limits) as archive:
        assert len(archive.infolist()) == 70_000
