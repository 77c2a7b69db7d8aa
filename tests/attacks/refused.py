"""Files that must not get through the door: name, bytes, and words of the reason."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable

import torch
from torch import nn

from tests.attacks.archives import (
    CODE,
    WEIGHTS,
    Good,
    calling,
    changed,
    entries_of,
    good,
    replaced,
    saved,
    with_bytes,
    with_central_field,
    with_code,
    with_end64,
    with_entry,
    with_local_field,
    with_pickle,
    with_state,
    zipped,
)

Attack = tuple[Callable[[], bytes], str]


class Saves(Good):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save([x], "/tmp/stolen.pt")  # noqa: S108
        return x


class Maps(Good):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_file("/etc/passwd", shared=True, size=10)


class Reads(Good):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_file("/etc/passwd", shared=False, size=10)


class SavesWhenLoaded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

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


def slow(x: torch.Tensor) -> torch.Tensor:
    return x + 1


class ForkBomb(Good):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        waiting = [torch.jit.fork(slow, x)]
        while True:
            waiting.append(torch.jit.fork(slow, x))
        return torch.jit.wait(waiting[0])


def global_call(module: str, name: str, argument: bytes) -> bytes:
    """A call as Python's pickle would make it: the argument in a tuple."""
    return f"c{module}\n{name}\n".encode() + argument + b"\x85R"


def text(words: str) -> bytes:
    data = words.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _tensor(count: int, offset: bytes, size: bytes, stride: bytes, key: str = "0") -> bytes:
    storage = (
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu")
        + b"J" + struct.pack("<i", count) + b"tQ"
    )  # fmt: skip
    parts = storage + offset + b"(" + size + b"t(" + stride + b"t"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + parts + b"\x89ccollections\nOrderedDict\n)RtR"


def _int(value: int) -> bytes:
    data = value.to_bytes(8, "little", signed=True)
    return b"\x8a\x08" + data


def _doubling(times: int) -> bytes:
    """A list in a list twice, and that twice, and so on: 2 ** times in a line of bytes."""
    used = _memo_of_the_good_one()
    made = b"]"
    for number in range(times):
        made += b"r" + struct.pack("<I", used + number) + b"j" + struct.pack("<I", used + number)
        made += b"\x86"
    return made


def _memo_of_the_good_one() -> int:
    """The number of the next value that the good pickle would remember, before its last."""
    from pickletools import genops  # noqa: PLC0415

    data = dict(entries_of(good()))["archive/data.pkl"]
    return sum(opcode.name in ("BINPUT", "LONG_BINPUT") for opcode, _, _ in genops(data)) - 1


def _sparse() -> bytes:
    module = Good()
    module.register_buffer("table", torch.eye(3).to_sparse())
    return saved(module)


def _overlapping() -> bytes:
    """Two entries of one place, as in bombs that fold their data over itself."""
    archive = zipped(entries_of(good()))
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        other = file.getinfo("archive/data/0").header_offset
    return with_central_field("archive/data/2", 42, struct.pack("<I", other))


def _symlink() -> bytes:
    return with_central_field("archive/data/0", 38, struct.pack("<I", 0o120777 << 16))


def _unix(archive: bytes) -> bytes:
    """Made on Unix, so that the upper half of the attributes counts."""
    start = archive.rindex(b"archive/data/0") - 46
    return with_bytes(start + 5, b"\x03", archive)


def _flipped(name: str) -> bytes:
    """One byte of a record changed, its checksum not."""
    data = dict(entries_of(good()))[name]
    archive = zipped(entries_of(good()))
    position = archive.index(data)
    return with_bytes(position, bytes([data[0] ^ 1]), archive)


def _renamed(old: str, new: str) -> bytes:
    return zipped([(name.replace(old, new), data) for name, data in entries_of(good())])


OPERATORS: dict[str, Attack] = {
    "save": (lambda: saved(Saves()), "torch.save"),
    "save while loading": (lambda: saved(SavesWhenLoaded()), "torch.save"),
    "map a shared file": (lambda: saved(Maps()), "torch.from_file"),
    "map a private file": (lambda: saved(Reads()), "torch.from_file"),
    "fork bomb": (lambda: saved(ForkBomb()), "fork"),
    "save by namespace": (lambda: calling("_0 = ops.aten.save(x, '/tmp/x')"), "ops.aten.save"),
    "save by another name": (lambda: calling("f = torch.save", "_0 = f(x, '/tmp/x')"), "save"),
    "save by attribute": (lambda: calling("_0 = (getattr(x, 'save'))('/tmp/x')"), "save"),
    "wait": (lambda: calling("_0 = (x).wait()"), "x.wait"),
    "another machine": (lambda: calling("_0 = rpc_sync('worker', added)"), "rpc_sync"),
    "a collective": (lambda: calling("_0 = ops.c10d.barrier()"), "ops.c10d.barrier"),
    "a debugger": (lambda: calling("_0 = ops.debugprims.load_tensor('f')"), "debugprims"),
    "seed": (lambda: calling("_0 = torch.manual_seed(1)"), "manual_seed"),
    "an address": (lambda: calling("_0 = ops.mkldnn.data_ptr(x)"), "data_ptr"),
    "memory without checks": (
        lambda: calling("y = torch._reshape_alias(x, [9999999], [1])"), "_reshape_alias",
    ),
    "a crash": (
        lambda: calling("y = torch._embedding_bag_dense_backward(x, x, x, x, x, 9, False, 0)"),
        "_embedding_bag_dense_backward",
    ),
    "an operator of tomorrow": (lambda: calling("y = torch.of_tomorrow(x)"), "of_tomorrow"),
    "a class in C++": (
        lambda: calling("s = annotate(__torch__.torch.classes.c10d.Store, x)"), "c10d.Store",
    ),
}  # fmt: skip

CODES: dict[str, Attack] = {
    "brackets": (lambda: calling("y = " + "(" * 5000 + "x" + ")" * 5000), "nested brackets"),
    "minus signs": (lambda: calling("y = " + "-" * 200_000 + "1"), "cannot be parsed"),
    "one sum": (lambda: calling("y = x" + " + x" * 200_000), "cannot be parsed"),
    "indents": (
        lambda: with_code("".join(" " * n + "if x:\n" for n in range(300)) + " " * 300 + "pass\n"),
        "cannot be parsed",
    ),
    "a huge constant": (lambda: calling("y = [" + "1, " * 1_500_000 + "]"), "are allowed"),
    "words without end": (lambda: calling(*["y = x"] * 200_000), "words and signs"),
    "not UTF-8": (lambda: with_code(b"def f(x):\n  y = '\xff\xfe'\n"), "not ASCII"),
    "a type in a comment": (
        lambda: calling("y = x # type: __torch__.torch.classes.c10d.Store"), "cannot be parsed",
    ),
    "three quotes": (lambda: calling('y = """torch.save(x)"""'), "cannot be parsed"),
    "an import": (lambda: with_code("import os\n"), "cannot be parsed"),
    "a name that is another": (lambda: calling("torch = x"), "another meaning"),
    "a path in a class": (
        lambda: _renamed("code/__torch__/tests", "code/__torch__/te sts"), "no class can have",
    ),
}  # fmt: skip

PICKLES: dict[str, Attack] = {
    "os.system": (lambda: with_state(global_call("posix", "system", text("id"))), "posix.system"),
    "eval": (lambda: with_state(global_call("builtins", "eval", text("1"))), "builtins.eval"),
    "subprocess": (
        lambda: with_state(global_call("subprocess", "Popen", text("id"))), "subprocess.Popen",
    ),
    "torch.load": (lambda: with_state(global_call("torch", "load", text("f"))), "torch.load"),
    "a class in C++": (
        lambda: with_state(b"c__torch__.torch.classes.c10d\nStore\n)\x81"), "c10d.Store",
    ),
    "a class in a type": (
        lambda: with_state(
            b"ctorch.jit._pickle\nrestore_type_tag\n]"
            + text("List[__torch__.torch.classes.c10d.Store]") + b"\x86R"
        ),
        "c10d.Store",
    ),
    "other protocol": (lambda: with_pickle(lambda _: pickle.dumps({}, 4)), "protocol 2"),
    "an opcode of Python's": (lambda: with_state(b"\x8c\x01a"), "opcode 0x8c"),
    "inside itself": (
        lambda: with_state(
            b"]r" + struct.pack("<I", _memo_of_the_good_one())
            + b"j" + struct.pack("<I", _memo_of_the_good_one()) + b"a"
        ),
        "its own",
    ),
    "each other": (lambda: with_state(_doubling(60)), "too many times"),
    "a memo far away": (lambda: with_state(b"]r\xff\xff\xff\x7f"), "memo jumps"),
    "marks": (lambda: with_state(b"(" * 100_000), "too deeply"),
    "a long number": (lambda: with_state(b"\x8a\xff" + b"\x7f" * 255), "64 bits"),
    "no end": (lambda: with_pickle(lambda data: data[:-1]), "cut off"),
    "behind the end": (lambda: with_pickle(lambda data: data + data), "behind its end"),
    "bad text": (lambda: with_state(b"X\x02\x00\x00\x00\xff\xfe"), "damaged"),
    "an endless text": (lambda: with_state(b"X\xff\xff\xff\x7f"), "text of"),
    "more than there is": (lambda: replaced(b"K\x20tQ", b"M\xff\xfftQ"), "elements of 4 bytes"),
    "an absurd shape": (
        lambda: with_state(_tensor(32, b"K\x00", _int(2**40), b"K\x00")), "bytes together",
    ),
    "a shape beyond": (
        lambda: with_state(_tensor(32, b"K\x00", _int(2**40), b"K\x01")), "behind the end",
    ),
    "an offset beyond": (
        lambda: with_state(_tensor(32, _int(10**6), b"K\x01", b"K\x01")), "behind the end",
    ),
    "a negative offset": (
        lambda: with_state(_tensor(32, _int(-64), b"K\x01", b"K\x01")), "cannot be",
    ),
    "a negative stride": (
        lambda: with_state(_tensor(32, b"K\x10", b"K\x04", _int(-4))), "cannot be",
    ),
    "a negative size": (
        lambda: with_state(_tensor(32, b"K\x00", _int(-1), b"K\x01")), "cannot be",
    ),
    "a missing record": (
        lambda: with_state(_tensor(1, b"K\x00", b"K\x01", b"K\x01", "77")), "is missing",
    ),
    "a record elsewhere": (
        lambda: with_state(_tensor(1, b"K\x00", b"K\x01", b"K\x01", "../version")), "storage",
    ),
    "sparse": (_sparse, "_rebuild_sparse_tensor"),
    "in the lines": (
        lambda: changed(f"{CODE}.debug_pkl", lambda _: b"\x80\x02cposix\nsystem\n."), "system",
    ),
    "in the constants": (
        lambda: changed("archive/constants.pkl", lambda _: b"\x80\x02cposix\nsystem\n."), "system",
    ),
}  # fmt: skip

ZIPS: dict[str, Attack] = {
    "a bomb": (
        lambda: with_entry("archive/data/9", bytes(40 * 2**20), zipfile.ZIP_DEFLATED), "times",
    ),
    "overlapping": (_overlapping, "ambiguous|overlaps"),
    "twice": (lambda: with_entry("archive/data.pkl", b"other"), "twice"),
    "twice but for case": (lambda: with_entry("archive/DATA.pkl"), "takes for one"),
    "twice in Unicode": (lambda: with_entry("archive/d\uff41ta.pkl"), "takes for one"),
    "upwards": (lambda: with_entry("archive/../../etc/cron.d/x"), "outside"),
    "from the root": (lambda: with_entry("/etc/cron.d/x"), "outside|one folder"),
    "another root": (lambda: with_entry("other/data.pkl"), "one folder"),
    "backslashes": (lambda: with_entry("archive\\..\\x"), "characters|one folder"),
    "NUL": (lambda: changed_name(b"archive/data/1", b"archive/data\x00!"), "characters|ambiguous"),
    "escape sequences": (lambda: with_entry("archive/\x1b[31mred"), "characters"),
    "too deep": (lambda: with_entry("archive/" + "a/" * 400 + "x"), "too deep"),
    "a link": (lambda: _unix(_symlink()), "link"),
    "encrypted": (lambda: with_central_field("archive/data/0", 8, b"\x01\x00"), "encrypted"),
    "flags": (lambda: with_central_field("archive/data/0", 8, b"\x00\x20"), "flags"),
    "bzip2": (lambda: with_entry("archive/x", b"x", zipfile.ZIP_BZIP2), "compression method"),
    "damaged weights": (lambda: _flipped("archive/data/0"), "data/0` is damaged"),
    "damaged code": (lambda: _flipped(CODE), "damaged"),
    "another name in the header": (
        lambda: with_local_field("archive/data/0", 30, b"archive/evil/0"), "contradicts",
    ),
    "another size in the header": (
        lambda: with_local_field("archive/data/0", 18, b"\xff\xff\x00\x00" * 2), "contradicts",
    ),
    "another method in the header": (
        lambda: with_local_field("archive/data/0", 8, b"\x08\x00"), "contradicts",
    ),
    "another size in the directory": (
        lambda: with_central_field("archive/data/0", 24, struct.pack("<I", WEIGHTS * 2)),
        "sizes|contra",
    ),
    "more entries than there are": (lambda: with_end64(entries=10**6), "cannot be read|entries"),
    "fewer entries than there are": (lambda: with_end64(entries=3), "more entries"),
    "a directory elsewhere": (lambda: with_end64(offset=0), "not where"),
    "several disks": (lambda: with_bytes(-18, b"\x01\x00"), "several|contradict"),
    "cut off": (lambda: good()[: len(good()) // 2], "cannot be read"),
    "a program in front": (lambda: b"#!/bin/sh\nid\n" + good(), "not a zip"),
    "a zip behind": (lambda: good() + good(), "cannot be read"),
    "a page behind": (lambda: good() + b"<script>alert(1)</script>", "cannot be read"),
    "a comment": (lambda: with_bytes(-2, b"\x09\x00") + b"<!doctype", "cannot be read"),
    "no version": (lambda: _renamed("/version", "/vision"), "version"),
    "a version that is none": (lambda: changed("archive/version", lambda _: b"0x41"), "version"),
    "big-endian": (lambda: changed("archive/byteorder", lambda _: b"big"), "big-endian"),
}  # fmt: skip


def changed_name(old: bytes, new: bytes) -> bytes:
    """A name changed in header and directory, checksums untouched."""
    return zipped(entries_of(good())).replace(old, new)
