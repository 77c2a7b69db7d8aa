"""Files with stored weights: what they hold, what they compute, and what becomes of them."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from engine.errors import WeightCannotBeStored
from engine.quantisation.encoding import Encodings
from engine.quantisation.packaging import Decode, bigger, packaged
from engine.quantisation.quantisable import quantisable
from engine.quantisation.weight_only import encode_weight_only
from engine.torchscript.program import Program
from service.models.archive_gate import ZipLimits, check_archive
from service.models.operators import refused_operators
from tests.engine.core.test_odd_uploads import pruned, removed_of

WAYS: tuple[Decode, ...] = ("at_use", "at_load")


class Winding(nn.Module):
    """Layers of one class, a loop, a branch, tied and bare weights, an LSTM, another method."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 16)
        self.mix = nn.Parameter(torch.randn(16, 16))
        self.layers = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16))
        self.memory = nn.LSTM(16, 8, batch_first=True)
        self.image = nn.Conv1d(8, 8, 3, padding=1)
        self.norm = nn.LayerNorm(8)
        self.up = nn.Linear(8, 16, bias=False)
        self.back = nn.Linear(16, 20, bias=False)
        self.back.weight = self.words.weight

    def forward(self, x: Tensor, rounds: int = 2) -> Tensor:
        h = self.words(x)
        for _ in range(rounds):
            h = h + self.layers(h)
        if h.shape[0] > 1:
            h = torch.matmul(h, self.mix)
        h, _ = self.memory(h)
        h = self.norm(self.image(h.transpose(1, 2)).transpose(1, 2))
        return self.back(self.up(h))

    @torch.jit.export
    def embed(self, x: Tensor) -> Tensor:
        return self.words(x)


def loaded(module: nn.Module) -> Program:
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(module.eval().requires_grad_(False)), file)
    return Program.load(file.getvalue())


@torch.no_grad()
def quantised(program: Program, *, bits: int = 4, group_size: int | None = 24) -> Encodings:
    """Encodings of all that can be encoded; the program gets the decoded values."""
    encodings: Encodings = {}
    weights, _ = quantisable(program)
    for name, weight in weights.items():
        encodings[name] = encode_weight_only(weight, bits=bits, group_size=group_size, name=name)
        weight.copy_(encodings[name].decode())
    return encodings


@pytest.fixture(scope="module")
def winding() -> tuple[Program, Encodings, Tensor]:
    torch.manual_seed(0)
    program = loaded(Winding())
    return program, quantised(program), torch.randint(0, 20, (3, 5))


def same(left: Program, right: Program, x: Tensor) -> bool:
    return all(torch.equal(left.run(given), right.run(given)) for given in ([x], [x[:1], 3]))


@pytest.mark.parametrize("decode", WAYS)
def test_the_file_computes_the_same_to_the_bit(winding, decode):
    program, encodings, x = winding
    packed = packaged(program, encodings, decode=decode)
    file = packed.to_bytes()
    again = Program.as_uploaded(file)
    assert same(packed, program, x)
    assert same(again, program, x)
    assert torch.equal(again.module.embed(x), program.module.embed(x))
    assert str(again.schema()).partition(",")[2] == str(program.schema()).partition(",")[2]
    frozen = torch.jit.freeze(again.module)
    assert torch.equal(frozen(x), program.run([x]))


def test_at_use_has_buffers_in_the_place_of_weights(winding):
    program, encodings, _ = winding
    module = torch.jit.load(io.BytesIO(packaged(program, encodings, decode="at_use").to_bytes()))
    buffers = dict(module.named_buffers())
    for name, encoding in encodings.items():
        for part, tensor in encoding.parts.items():
            assert torch.equal(buffers[f"{name}_stored.{part}"], tensor)
    left = {name for name, _ in module.named_parameters()}
    assert left == program.parameters().keys() - encodings.keys()
    held = sum(tensor.numel() * tensor.element_size() for tensor in buffers.values())
    assert held == sum(encoding.stored_bytes for encoding in encodings.values())


def test_at_load_has_the_weights_under_their_names(winding):
    program, encodings, _ = winding
    module = torch.jit.load(io.BytesIO(packaged(program, encodings, decode="at_load").to_bytes()))
    held = dict(module.named_parameters())
    # A bare weight beside submodules moves, and of a shared one only its first name stays.
    assert torch.equal(held.pop("mix_stored.weight"), program.attributes()["mix"])
    expected = program.parameters()
    del expected["mix"]
    assert held.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(held[name], tensor)
    assert not dict(module.named_buffers())


@pytest.mark.parametrize("decode", WAYS)
def test_saved_again_it_is_still_small(winding, decode):
    program, encodings, x = winding
    file = packaged(program, encodings, decode=decode).to_bytes()
    module = torch.jit.load(io.BytesIO(file))
    again = io.BytesIO()
    torch.jit.save(module, again)
    assert tensor_bytes(again.getvalue()) == tensor_bytes(file)
    assert torch.equal(torch.jit.load(io.BytesIO(again.getvalue()))(x), program.run([x]))


def test_weights_that_changed_after_loading_are_saved_as_they_are(winding):
    program, encodings, x = winding
    module = torch.jit.load(io.BytesIO(packaged(program, encodings, decode="at_load").to_bytes()))
    with torch.no_grad():
        dict(module.named_parameters())["up.weight"].add_(0.25)
    again = io.BytesIO()
    torch.jit.save(module, again)
    assert torch.equal(torch.jit.load(io.BytesIO(again.getvalue()))(x), module(x))
    assert not torch.equal(module(x), program.run([x]))
    wide = module.double()
    torch.jit.save(wide, again := io.BytesIO())
    back = torch.jit.load(io.BytesIO(again.getvalue()))
    assert {tensor.dtype for tensor in back.parameters()} == {torch.float64}
    assert torch.equal(back(x), wide(x))


def test_some_weights_at_use_and_others_at_load(winding):
    program, encodings, x = winding
    names = list(encodings)
    use = {name: encodings[name] for name in names[::2]}
    load = {name: encodings[name] for name in names[1::2]}
    both = packaged(packaged(program, use, decode="at_use"), load, decode="at_load")
    assert same(Program.as_uploaded(both.to_bytes()), program, x)
    with pytest.raises(ValueError, match="last"):
        packaged(both, use, decode="at_use")


def test_a_file_decoded_at_load_is_an_ordinary_upload(winding):
    program, encodings, x = winding
    file = packaged(program, encodings, decode="at_load").to_bytes()
    upload = Program.load(file)
    assert same(upload, program, x)
    dense = upload.to_bytes()
    assert b"__setstate__" in b"".join(code(file).values())
    assert b"__setstate__" not in b"".join(code(dense).values())
    assert quantisable(upload)[0].keys() == {
        "mix_stored.weight" if name == "mix" else name for name in encodings
    }


@pytest.mark.parametrize("decode", WAYS)
def test_layers_of_one_shape_share_a_class(decode):
    program = loaded(nn.Sequential(*(nn.Linear(16, 16) for _ in range(6)), nn.Linear(16, 8)))
    encodings = quantised(program)
    file = packaged(program, encodings, decode=decode).to_bytes()
    assert len([name for name in code(file) if "linear" in name]) == 2
    x = torch.randn(3, 16)
    assert torch.equal(Program.as_uploaded(file).run([x]), program.run([x]))
    some = dict(list(encodings.items())[1:4:2])
    file = packaged(program, some, decode=decode).to_bytes()
    assert torch.equal(Program.as_uploaded(file).run([x]), program.run([x]))
    module = torch.jit.load(io.BytesIO(file))
    stays = {name for name, _ in module.named_parameters()}
    assert (decode == "at_load") == (stays >= some.keys())
    assert stays >= program.parameters().keys() - some.keys()


def test_layers_stored_at_use_are_whole_and_their_neighbours_are_pruned():
    net = nn.Sequential(
        *(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU()),
        *(nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 4)),
    )
    program = loaded(net)
    weight = program.parameters()["2.weight"]
    encodings: Encodings = {"2.weight": encode_weight_only(weight, bits=4, group_size=20)}
    weight.copy_(encodings["2.weight"].decode())
    x = [torch.randn(2, 3, 8, 8)]
    removed = {}
    for decode in WAYS:
        upload = Program.load(packaged(program, encodings, decode=decode).to_bytes())
        planned, _ = pruned(upload, x)
        removed[decode] = removed_of(planned)
        whole = {item.layer for item in planned.frozen if item.reason}
        assert ("2.weight_stored" in whole) == (decode == "at_use")
    assert removed == {"at_use": {"4": 8}, "at_load": {"0": 8, "2": 8, "4": 8}}


def test_a_file_decoded_at_use_is_an_upload_that_runs(winding):
    program, encodings, x = winding
    upload = Program.load(packaged(program, encodings, decode="at_use").to_bytes())
    assert same(upload, program, x)
    assert same(upload.copy(), program, x)
    assert quantisable(upload) == ({}, {})


def tensor_bytes(file: bytes) -> int:
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        return sum(entry.file_size for entry in archive.infolist() if "/data/" in entry.filename)


def code(file: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name.endswith(".py")}


@pytest.mark.parametrize("decode", WAYS)
def test_the_service_takes_the_file_as_an_upload(winding, decode, tmp_path):
    program, encodings, _ = winding
    path = tmp_path / "packed.pt"
    packaged(program, encodings, decode=decode).save(path)
    check_archive(path, ZipLimits(entries=10_000, ratio=1_000, unpacked_bytes=10**9))
    for file, text in code(path.read_bytes()).items():
        assert not refused_operators(text.decode(), file)


def test_a_process_with_nothing_but_torch_computes_the_same(winding, tmp_path: Path):
    program, encodings, x = winding
    for decode in WAYS:
        packaged(program, encodings, decode=decode).save(tmp_path / f"{decode}.pt")
    torch.save((x, program.run([x])), tmp_path / "pair.pt")
    script = (
        "import sys, torch\n"
        "x, expected = torch.load(sys.argv[1])\n"
        "for file in sys.argv[2:]:\n"
        "    module = torch.jit.load(file)\n"
        "    assert all(torch.equal(module(x), expected) for _ in range(4))\n"
        "assert not [name for name in sys.modules if name.startswith(('engine', 'secateur'))]\n"
    )
    files = [tmp_path / "pair.pt", *(tmp_path / f"{decode}.pt" for decode in WAYS)]
    subprocess.run([sys.executable, "-I", "-W", "ignore", "-c", script, *files], check=True)


@pytest.mark.parametrize("decode", WAYS)
@pytest.mark.parametrize(("bits", "group_size", "ratio"), [(8, None, 3.8), (4, 64, 7.0)])
def test_files_of_linear_networks_shrink(decode, bits, group_size, ratio):
    program = loaded(nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 512)))
    dense = len(program.to_bytes())
    encodings = quantised(program, bits=bits, group_size=group_size)
    assert dense / len(packaged(program, encodings, decode=decode).to_bytes()) > ratio


@pytest.mark.parametrize("decode", WAYS)
def test_weights_that_would_make_the_file_bigger_are_told(decode):
    program = loaded(nn.Sequential(*(nn.Linear(width, 32) for width in (4, 8, 16, 20, 24, 32, 64))))
    sizes = {}
    dense = len(packaged(program, {}, decode=decode).to_bytes())
    for name, encoding in quantised(program, bits=8, group_size=4).items():
        packed = len(packaged(program, {name: encoding}, decode=decode).to_bytes())
        sizes[name] = packed - dense
        if not bigger(encoding, decode):
            assert packed < dense
        if packed - dense > 400:
            assert "bytes" in bigger(encoding, decode)
    assert min(sizes.values()) < 0 < max(sizes.values())


def test_gradients_are_asked_for_as_before():
    program = loaded(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)))
    encodings = quantised(program)
    program.parameters()["1.weight"].requires_grad_(True)
    file = packaged(program, encodings, decode="at_load").to_bytes()
    asked = {
        name
        for name, one in torch.jit.load(io.BytesIO(file)).named_parameters()
        if one.requires_grad
    }
    assert asked == {"1.weight"}


def test_other_values_than_the_encoding_has_are_refused(winding):
    program, encodings, _ = winding
    other = program.copy()
    other.parameters()["up.weight"].mul_(1.5)
    with pytest.raises(ValueError, match=r"up\.weight"):
        packaged(other, encodings, decode="at_use")


class Attending(nn.Module):
    """Weights beside submodules, and recurrent ones that a list holds too."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(16, 4, batch_first=True)
        self.remember = nn.GRU(16, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.attend(x, x, x, need_weights=False)
        y, _ = self.remember(y)
        return y


class Shared(nn.Module):
    """One module under three names."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)
        self.b = self.a
        self.c = nn.ModuleList([nn.Linear(8, 8), self.a])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.c:
            x = layer(x)
        return self.b(self.a(x))


class Chosen(nn.Module):
    """Which weight is read depends on the input; beside them lie other attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)
        self.factor, self.names, self.table = 3, ["a"], {"x": 1.5}

    def forward(self, x: Tensor) -> Tensor:
        weight = self.a.weight if x.sum() > 0 else self.b.weight
        return nn.functional.linear(x, weight) * self.factor * self.table["x"] + len(self.names)


class Plain(nn.Module):
    """Attributes that a method's signature can and cannot name, beside the weight."""

    def __init__(self, device: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8))
        self.factor, self.names, self.table, self.pair = 3, ["a"], {"x": 1.5}, (1, 2.0)
        if device:
            self.place = torch.device("cpu")

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight * self.factor * self.table["x"] + len(self.names) + self.pair[1]


def traced(module: nn.Module, x: Tensor) -> Program:
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(module.eval().requires_grad_(False), x), file)
    return Program.load(file.getvalue())


def frozen(module: nn.Module) -> Program:
    file = io.BytesIO()
    torch.jit.save(torch.jit.freeze(torch.jit.script(module.eval())), file)
    return Program.load(file.getvalue())


def rows() -> Tensor:
    return torch.randn(2, 8)


def images() -> Tensor:
    return torch.randn(1, 3, 8, 8)


KINDS: dict[str, tuple[Callable[[], Program], Callable[[], Tensor], set[str]]] = {
    "one layer": (lambda: loaded(nn.Linear(8, 8)), rows, {"weight"}),
    "traced": (
        lambda: traced(
            nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ConvTranspose2d(8, 4, 3)),
            images(),
        ),
        images,
        set(),
    ),
    "frozen": (lambda: frozen(nn.Sequential(nn.Linear(8, 8), nn.ReLU())), rows, set()),
    "attention": (
        lambda: loaded(Attending()),
        lambda: torch.randn(2, 5, 16),
        {"attend.in_proj_weight"},
    ),
    "shared": (lambda: loaded(Shared()), rows, set()),
    "chosen": (lambda: loaded(Chosen()), rows, set()),
    "bfloat16": (
        lambda: traced(nn.Sequential(nn.Linear(8, 8)).bfloat16(), rows().bfloat16()),
        lambda: rows().bfloat16(),
        set(),
    ),
    "plain": (lambda: loaded(nn.Sequential(Plain(device=False))), rows, set()),
    "device": (lambda: loaded(nn.Sequential(Plain(device=True))), rows, {"0.weight"}),
}
"""Programs, inputs, and the weights that lose their name when decoded at load."""


@pytest.mark.parametrize("kind", list(KINDS))
def test_programs_of_every_kind(kind: str) -> None:
    make, inputs, moved = KINDS[kind]
    program, x = make(), inputs()
    encodings = quantised(program, group_size=5)
    for decode in WAYS:
        packed = packaged(program, encodings, decode=decode)
        file = packed.to_bytes()
        upload = Program.load(file)
        for one in (packed, Program.as_uploaded(file), upload, Program.load(upload.to_bytes())):
            assert torch.equal(one.run([x]), program.run([x]))
            assert torch.equal(one.run([-x]), program.run([-x]))
        if decode == "at_load":
            names = {
                f"{name}_stored.weight" if name in moved else name for name in program.parameters()
            }
            assert upload.parameters().keys() == names


class Moving(nn.Module):
    """Writes to one weight, adds another, and returns a third."""

    def __init__(self) -> None:
        super().__init__()
        self.replaced = nn.Parameter(torch.randn(4, 4), requires_grad=False)
        self.scaled = nn.Parameter(torch.randn(4, 4), requires_grad=False)
        self.added = nn.Parameter(torch.randn(4, 4), requires_grad=False)
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x @ self.replaced
        self.replaced = self.replaced * 0.5
        x = x @ self.scaled.t().mul_(0.5) + self.added
        return self.layer(x), self.layer.weight


def test_weights_that_cannot_be_stored_say_why():
    program = loaded(Moving())
    weights, reasons = quantisable(program)
    assert list(weights) == ["layer.weight"]
    assert reasons["replaced"] == reasons["scaled"] == "the program writes to it"
    assert "aten::add" in reasons["added"]
    encodings = quantised(program)
    x = torch.randn(4, 4)
    for decode in WAYS:
        packed = packaged(program, encodings, decode=decode).twin()
        for got, expected in zip(packed.run([x]), program.twin().run([x]), strict=True):
            assert torch.equal(got, expected)
    encodings["replaced"] = encode_weight_only(
        program.parameters()["replaced"], bits=8, group_size=None
    )
    program.parameters()["replaced"].copy_(encodings["replaced"].decode())
    with pytest.raises(WeightCannotBeStored, match="replaced"):
        packaged(program, encodings, decode="at_use")


def test_excluded_layers_keep_shared_weights_too(winding):
    program, _, _ = winding
    weights, reasons = quantisable(program, ["back", "layers.*"])
    assert reasons == {
        "words.weight": "excluded by `back`",
        "layers.0.weight": "excluded by `layers.*`",
        "layers.2.weight": "excluded by `layers.*`",
    }
    assert "memory.weight_hh_l0" in weights
