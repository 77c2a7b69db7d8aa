"""A decoder of one billion parameters: time and memory of compacting and certifying it.

    python -m bench.zoo.decoder [--layers 20] [--width 2048] [--form scripted|traced]

The network is Llama-like (RMSNorm, rotary positions, grouped-query attention, SwiGLU, separate
output embedding) with random float32 weights. Three processes on one thread, all on the same file:

    write       builds the module and writes the file
    round trip  torch.jit.load, one forward, torch.jit.save: the unit of time
    compress    load, couple + scores + selection + compaction (half of the channels by L1 norm),
                certify, save; peak memory of each phase by itself

Printed are the peak as a multiple of the file and the time as a multiple of the round trip.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.machine import description
from bench.zoo.case import STAGE
from bench.zoo.memory import peak_bytes, reset_peak, resident_bytes
from engine.measure.size import parameter_count, weights_of
from engine.pipeline.prune import certified, plan_channels
from engine.torchscript.program import Program

VOCABULARY = 32_000
HEAD = 64
QUERIES_PER_KEY = 4
LENGTH = 16


class Norm(nn.Module):
    """RMSNorm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)


class Attention(nn.Module):
    """Causal attention; four query heads share one key and value head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // HEAD
        self.groups = self.heads // QUERIES_PER_KEY
        self.size, self.repeats = HEAD, QUERIES_PER_KEY
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, self.groups * HEAD, bias=False)
        self.value = nn.Linear(width, self.groups * HEAD, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotary positions."""
        low, high = x.chunk(2, -1)
        return x * cos + torch.cat([-high, low], -1) * sin

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        query = self.query(x).unflatten(-1, (self.heads, self.size)).transpose(1, 2)
        key = self.key(x).unflatten(-1, (self.groups, self.size)).transpose(1, 2)
        value = self.value(x).unflatten(-1, (self.groups, self.size)).transpose(1, 2)
        query, key = self.turn(query, cos, sin), self.turn(key, cos, sin)
        key = key.repeat_interleave(self.repeats, 1)
        value = value.repeat_interleave(self.repeats, 1)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class Layer(nn.Module):
    """Attention and SwiGLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = -(-width * 11 // 4 // 256) * 256
        self.norm1, self.norm2 = Norm(width), Norm(width)
        self.attention = Attention(width)
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x), cos, sin)
        y = self.norm2(x)
        out: Tensor = x + self.down(functional.silu(self.gate(y)) * self.up(y))
        return out


class Decoder(nn.Module):
    """Tokens to logits."""

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.layers = nn.ModuleList(Layer(width) for _ in range(layers))
        self.norm = Norm(width)
        self.head = nn.Linear(width, VOCABULARY, bias=False)
        rates = 10_000 ** (-torch.arange(0, HEAD, 2) / HEAD)
        angles = torch.arange(LENGTH)[:, None] * rates.repeat(2)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        out: Tensor = self.head(self.norm(x))
        return out


def example() -> list[Tensor]:
    """One sequence."""
    return [torch.randint(0, VOCABULARY, (1, LENGTH), generator=torch.Generator().manual_seed(1))]


def write(file: Path, layers: int, width: int, form: str) -> dict[str, Any]:
    """The file a user would upload."""
    torch.manual_seed(0)
    model = Decoder(layers, width).eval()
    with torch.no_grad():
        compiled = (
            torch.jit.script(model)
            if form == "scripted"
            else torch.jit.trace(model, tuple(example()), check_trace=False)
        )
    torch.jit.save(compiled, str(file))
    count = sum(item.numel() for item in model.parameters())
    return {"parameters": count, "bytes": file.stat().st_size}


@torch.no_grad()
def round_trip(file: Path) -> dict[str, Any]:
    """The unit: load, run, save."""
    phases = Phases()
    module = phases.run("load", lambda: torch.jit.load(str(file)))
    with torch.jit.optimized_execution(False):
        phases.run("forward", lambda: module(*example()))
    phases.run("save", lambda: torch.jit.save(module, str(file.with_suffix(".again"))))
    return phases.figures()


def compress(file: Path) -> dict[str, Any]:
    """What the engine does with an upload, up to the saved result."""
    phases = Phases()
    program = phases.run("load", lambda: Program.load(file))
    planned = phases.run("compact", lambda: plan_channels(program, STAGE, example(), seed=0))
    compact = planned.compacted
    if compact is None:
        raise RuntimeError("nothing was removed")
    certificate = phases.run("certify", lambda: certified(program, planned, example()))
    phases.run("save", lambda: compact.save(file.with_suffix(".small")))
    return {
        **phases.figures(),
        "parameters_after": parameter_count(weights_of(compact)),
        "certificate": None if certificate is None else certificate.model_dump(),
        "frozen": sum(item.channels for item in planned.frozen),
    }


class Phases:
    """Time and peak memory of one thing after the other."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._peaks: dict[str, int] = {}
        self._left: dict[str, int] = {}
        self._base = resident_bytes()

    def run(self, name: str, work: Callable[[], Any]) -> Any:
        """The result of the work; its time is wall-clock time, for reading files is part of it."""
        gc.collect()
        reset_peak()
        start = time.perf_counter()
        result = work()
        self._seconds[name] = time.perf_counter() - start
        self._peaks[name] = peak_bytes() - self._base
        gc.collect()
        self._left[name] = resident_bytes() - self._base
        return result

    def figures(self) -> dict[str, Any]:
        """Seconds, peaks and what stayed resident, above what the process had at the start."""
        return {"seconds": self._seconds, "peaks": self._peaks, "left": self._left}


def in_process(part: str, file: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One part in a process of its own."""
    command = [sys.executable, "-m", "bench.zoo.decoder", "--part", part, "--file", str(file)]
    command += ["--layers", str(options.layers), "--width", str(options.width)]
    command += ["--form", options.form]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def report(options: argparse.Namespace) -> None:
    """All parts, and their figures beside one another."""
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        file = Path(folder) / "decoder.pt"
        written = in_process("write", file, options)
        unit = in_process("round_trip", file, options)
        file.with_suffix(".again").unlink()
        ours = in_process("compress", file, options)
        small = file.with_suffix(".small").stat().st_size
    size = written["bytes"]
    print(f"{options.layers} layers, width {options.width}, {options.form}; {description()}")
    print(f"parameters {written['parameters']:,} -> {ours['parameters_after']:,}")
    print(f"file {size / 1e6:,.0f} MB -> {small / 1e6:,.0f} MB")
    print(f"\n{'phase':<22}{'seconds':>10}{'peak MB':>10}{'peak x file':>13}{'left x file':>13}")
    for name, figures in (("round trip", unit), ("ours", ours)):
        for phase, seconds in figures["seconds"].items():
            peak, left = figures["peaks"][phase], figures["left"][phase]
            print(
                f"{f'{name}, {phase}':<22}{seconds:>10.2f}{peak / 1e6:>10,.0f}"
                f"{peak / size:>13.2f}{left / size:>13.2f}"
            )
    whole, again = sum(ours["seconds"].values()), sum(unit["seconds"].values())
    print(f"\npeak memory   {max(ours['peaks'].values()) / size:.2f} x the file")
    print(f"time          {whole / again:.2f} x load, forward and save ({whole:.1f} s)")
    certificate = ours["certificate"]
    print(
        f"certificate   {certificate['kind']}, error {certificate['max_relative_error']:.1e}, "
        f"restricted {certificate['restricted_error'] or 0:.1e}"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=20)
    parser.add_argument("--width", type=int, default=2048, help=f"a multiple of {4 * HEAD}")
    parser.add_argument("--form", choices=("scripted", "traced"), default="scripted")
    parser.add_argument("--folder", help="where the files go for the time of the run")
    parser.add_argument("--part", choices=("write", "round_trip", "compress"))
    parser.add_argument("--file", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if options.part is None:
        report(options)
    elif options.part == "write":
        print(json.dumps(write(options.file, options.layers, options.width, options.form)))
    else:
        work = round_trip if options.part == "round_trip" else compress
        print(json.dumps(work(options.file)))


if __name__ == "__main__":
    main()
