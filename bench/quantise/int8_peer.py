"""Int8 against onnxruntime's quantiser: the same networks, file size, accuracy and latency.

Both get the same trained TorchScript file and, where they calibrate, the same 512 images. The peer
exports it to ONNX, then runs `quantize_dynamic` or `quantize_static` (QDQ, uint8 activations) with
int8 weights, a scale for each channel; min-max calibration on both sides. What our own default
(`histogram`) gets right is printed beside. Latency is wall time of a
batch on one thread, medians of alternating blocks in one process.

`python -m bench.quantise.int8_peer [--rounds 15]`; the last lines give the ratios and targets.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnxruntime
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor

from bench.machine import description
from bench.quantise.int8_networks import NETWORKS, digits, trained
from engine.quantisation.int8.dynamic import quantise_dynamic
from engine.quantisation.int8.static import quantise_static
from engine.torchscript.program import Program

CALIBRATION = 512
BATCHES = (1, 64)
SIZE_TARGET = 1.05
RESULTS = Path(__file__).with_name("int8_peer.json")
_BLOCK_SECONDS = 0.05
SCHEMES = ("dynamic", "static")
HISTOGRAM = "static, histogram"
Run = Callable[[Tensor], Tensor]


class Images(CalibrationDataReader):
    """Calibration images in batches of 64."""

    def __init__(self, images: Tensor) -> None:
        self._batches = iter(images.split(64))

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"x": batch.numpy()}


def peer(file: bytes, images: Tensor, folder: Path) -> dict[str, Path]:
    """The peer's files, by scheme, and its unquantised one."""
    whole, ready = folder / "whole.onnx", folder / "ready.onnx"
    torch.onnx.export(
        torch.jit.load(io.BytesIO(file)),
        (images[:2],),
        str(whole),
        dynamo=False,
        opset_version=17,
        input_names=["x"],
        output_names=["y"],
        dynamic_axes={"x": {0: "n"}, "y": {0: "n"}},
    )
    quant_pre_process(str(whole), str(ready))
    found = {"float": whole, **{scheme: folder / f"{scheme}.onnx" for scheme in SCHEMES}}
    quantize_dynamic(ready, found["dynamic"], per_channel=True, weight_type=QuantType.QInt8)
    quantize_static(
        ready,
        found["static"],
        Images(images),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return found


def ours(file: bytes, images: Tensor) -> dict[str, bytes]:
    """Our files, by scheme, and the upload."""
    program = Program.load(file)
    batches = [[batch] for batch in images.split(64)]
    return {
        "float": file,
        "dynamic": quantise_dynamic(program).to_bytes(),
        "static": quantise_static(program, batches, observer="min_max").to_bytes(),
        HISTOGRAM: quantise_static(program, batches, observer="histogram").to_bytes(),
    }


def torch_run(file: bytes) -> Run:
    """Runs a TorchScript file."""
    module = torch.jit.load(io.BytesIO(file))

    def run(x: Tensor) -> Tensor:
        with torch.inference_mode():
            output: Tensor = module(x)
        return output

    return run


def peer_run(path: Path) -> Run:
    """Runs an ONNX file on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


def milliseconds(runs: dict[str, Run], x: Tensor, rounds: int) -> dict[str, float]:
    """Median time of a batch for each, in blocks that take turns."""
    counts = {}
    for name, run in runs.items():
        for _ in range(10):
            run(x)
        begun = time.perf_counter()
        run(x)
        counts[name] = max(int(_BLOCK_SECONDS / (time.perf_counter() - begun)), 1)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds):
        names = list(runs)[turn % len(runs) :] + list(runs)[: turn % len(runs)]
        for name in names:
            begun = time.perf_counter()
            for _ in range(counts[name]):
                runs[name](x)
            times[name].append((time.perf_counter() - begun) / counts[name])
    return {name: 1e3 * statistics.median(values) for name, values in times.items()}


def correct(run: Run, images: Tensor, classes: Tensor) -> int:
    """How many images it gets right."""
    return int((run(images).argmax(1) == classes).sum())


def compared(name: str, rounds: int, epochs: int, folder: Path) -> dict[str, Any]:
    """One network: bytes, correct of 360, and milliseconds a batch."""
    images, _, judged, classes = digits()
    file = trained(name, epochs)
    theirs, own = peer(file, images[:CALIBRATION], folder), ours(file, images[:CALIBRATION])
    found: dict[str, Any] = {}
    for scheme in ("float", *SCHEMES):
        runs = {"ours": torch_run(own[scheme]), "peer": peer_run(theirs[scheme])}
        found[scheme] = {
            "bytes": {"ours": len(own[scheme]), "peer": theirs[scheme].stat().st_size},
            "correct": {side: correct(run, judged, classes) for side, run in runs.items()},
            "milliseconds": {
                str(batch): milliseconds(runs, judged[:batch], rounds) for batch in BATCHES
            },
        }
    by_histogram = correct(torch_run(own[HISTOGRAM]), judged, classes)
    found["static"]["correct"][HISTOGRAM] = by_histogram
    return found


def shown(figures: dict[str, dict[str, Any]]) -> None:
    """The table, then ratios against targets."""
    print(f"{'':24}{'bytes':>19}{'correct of 360':>16}{'ms, batch 1':>17}{'ms, batch 64':>18}")
    for name, schemes in figures.items():
        for scheme, one in schemes.items():
            cells = [one["bytes"], one["correct"], *one["milliseconds"].values()]
            texts = [
                f"{cell['ours']:.3f} {cell['peer']:.3f}"
                if isinstance(cell["ours"], float)
                else f"{cell['ours']} {cell['peer']}"
                for cell in cells
            ]
            print(f"{name:12}{scheme:12}{texts[0]:>19}{texts[1]:>16}{texts[2]:>17}{texts[3]:>18}")
    for name, schemes in figures.items():
        for scheme in SCHEMES:
            one = schemes[scheme]
            size = one["bytes"]["ours"] / one["bytes"]["peer"]
            right = one["correct"]["ours"] - one["correct"]["peer"]
            times = [each["ours"] / each["peer"] for each in one["milliseconds"].values()]
            beside = (
                f", by histogram {one['correct'][HISTOGRAM] - one['correct']['peer']:+d}"
                if HISTOGRAM in one["correct"]
                else ""
            )
            print(
                f"{name} {scheme}: size ours / peer {size:.3f} (at most {SIZE_TARGET}: "
                f"{'yes' if size <= SIZE_TARGET else 'NO'}), correct {right:+d} "
                f"(no worse: {'yes' if right >= 0 else 'NO'}){beside}, latency ours / peer "
                + ", ".join(f"{ratio:.2f}" for ratio in times)
            )
    for side in ("ours", "peer"):
        total = sum(schemes[s]["correct"][side] for schemes in figures.values() for s in SCHEMES)
        print(f"correct over all networks and both schemes, {side}: {total}")


def main() -> None:
    """Measure, print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--network", choices=list(NETWORKS), action="append")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    figures = {}
    for name in asked.network or NETWORKS:
        with TemporaryDirectory() as folder:
            figures[name] = compared(name, asked.rounds, asked.epochs, Path(folder))
    machine = description("onnxruntime", "onnx")
    if asked.network is None:
        RESULTS.write_text(json.dumps({"machine": machine, "networks": figures}, indent=1) + "\n")
    shown(figures)
    print(machine)


if __name__ == "__main__":
    main()
