"""How time grows with width and depth.

    python -m bench.zoo.scaling [--runs 3]

A transformer encoder and a residual network at widths and depths of one, two and four times the
smallest. Timed, in processor time of one thread, are the analysis (couple), and everything from
the loaded program to the compact one. The table is printed; `scaling.json` and
`docs/images/scaling.svg` are written from it.

The analysis runs on the meta device, so it should grow with depth (operators) and hardly with
width (labels); slicing reads every weight, so compaction grows with width squared once the
weights outweigh the instructions.
"""

from __future__ import annotations

import argparse
import gc
import io
import json
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional

from bench.machine import description
from bench.zoo.case import STAGE
from engine.coupling import couple
from engine.pipeline.prune import plan_channels
from engine.torchscript.program import Program

FACTORS = (1, 2, 4)
FIGURES = Path(__file__).with_name("scaling.json")
PLOT = Path(__file__).parents[2] / "docs" / "images" / "scaling.svg"

Row = dict[str, Any]


class Attention(nn.Module):
    """Self-attention with one product for queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        split = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(split[0], split[1], split[2])
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class EncoderLayer(nn.Module):
    """Attention and two dense layers, each normalised first and added to its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, width // 32)
        self.dense = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.dense(self.norm2(x))
        return out


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(after), nn.BatchNorm2d(after)
        self.shortcut = (
            nn.Identity() if before == after else nn.Conv2d(before, after, 1, stride, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        return torch.relu(y + self.shortcut(x))


def transformer(width: int, depth: int) -> tuple[nn.Module, Tensor]:
    """An encoder of 128 channels and 3 layers, times the factors."""
    channels = 128 * width
    layers = [EncoderLayer(channels) for _ in range(3 * depth)]
    model = nn.Sequential(
        nn.Linear(64, channels), *layers, nn.LayerNorm(channels), nn.Linear(channels, 10)
    )
    return model, torch.randn(1, 16, 64)


def residual(width: int, depth: int) -> tuple[nn.Module, Tensor]:
    """Three stages of 32, 64 and 128 channels and 2 blocks each, times the factors."""
    blocks: list[nn.Module] = [nn.Conv2d(3, 32 * width, 3, 1, 1)]
    before = 32 * width
    for stage in range(3):
        after = 32 * width * 2**stage
        for block in range(2 * depth):
            blocks.append(ResidualBlock(before, after, 2 if stage and block == 0 else 1))
            before = after
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10)]
    return nn.Sequential(*blocks, *head), torch.randn(1, 3, 32, 32)


NETWORKS = {"transformer": transformer, "residual": residual}


def measure(name: str, width: int, depth: int, runs: int) -> Row:
    """Median times of one network."""
    torch.manual_seed(0)
    model, example = NETWORKS[name](width, depth)
    model.eval()
    traced = torch.jit.trace(model, (example,), check_trace=False)
    upload = traced.save_to_buffer()
    analysis, whole = [], []
    for _ in range(runs):
        program = Program.load(upload)
        analysis.append(_seconds(lambda p=program: couple(p, [example])))
        program = Program.load(upload)
        whole.append(_seconds(lambda p=program: plan_channels(p, STAGE, [example], seed=0)))
    return {
        "network": name,
        "width": width,
        "depth": depth,
        "parameters": sum(item.numel() for item in model.parameters()),
        "instructions": len(Program.load(upload).block.instructions),
        "analysis_seconds": float(f"{median(analysis):.3g}"),
        "whole_seconds": float(f"{median(whole):.3g}"),
    }


def _seconds(work: Any) -> float:
    gc.collect()
    start = time.process_time()
    work()
    return time.process_time() - start


def plot(rows: list[Row]) -> str:
    """Time over parameters, one line a width and network, as SVG."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(NETWORKS), sharey=True), NETWORKS, strict=True):
        for width in FACTORS:
            own = [row for row in rows if row["network"] == name and row["width"] == width]
            depths = [row["depth"] for row in own]
            (line,) = axes.plot(
                depths, [row["whole_seconds"] for row in own], "o-", label=f"width x{width}"
            )
            axes.plot(
                depths,
                [row["analysis_seconds"] for row in own],
                "o:",
                color=line.get_color(),
                markersize=3,
            )
        axes.set(xscale="log", yscale="log", xlabel="depth", title=name)
        axes.set_xticks(FACTORS, [f"x{factor}" for factor in FACTORS])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("seconds (dotted: analysis alone)")
    figure.axes[0].legend()
    text = io.StringIO()
    # A fixed salt and no date: the same figures give the same file.
    with mpl.rc_context({"svg.hashsalt": "scaling"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = []
    print(
        f"{'network':<12}{'width':>6}{'depth':>6}{'parameters':>14}{'instructions':>14}"
        f"{'analysis s':>12}{'in all s':>10}"
    )
    for name in NETWORKS:
        measure(name, 1, 1, 1)  # warms up what torch imports when first used
        for width in FACTORS:
            for depth in FACTORS:
                row = measure(name, width, depth, runs)
                rows.append(row)
                print(
                    f"{name:<12}{'x' + str(width):>6}{'x' + str(depth):>6}"
                    f"{row['parameters']:>14,}{row['instructions']:>14,}"
                    f"{row['analysis_seconds']:>12.3f}{row['whole_seconds']:>10.3f}",
                    flush=True,
                )
    figures = {"measured_on": description(), "runs": runs, "rows": rows}
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    PLOT.write_text(plot(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
