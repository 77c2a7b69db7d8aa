"""One case: one architecture, uploaded in one form, compressed and checked.

    python -m bench.zoo.case COLLECTION NAME traced|scripted

prints one line of JSON. It is a process of its own, so that memory and time are the case's own
and a crash costs nothing else.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import torch
from secateur.recipe import Allocation, PruneStage

from bench.zoo.enliven import enliven, sensitivity
from bench.zoo.networks import Network, find
from engine.certify import relative_error
from engine.errors import EngineError
from engine.measure.macs import count_macs
from engine.measure.size import parameter_count, weights_of
from engine.pipeline.prune import certified, plan_channels
from engine.pipeline.reload import check_reload
from engine.structure import tensors_in
from engine.torchscript.interpreter import Interpreter, PlainVisitor
from engine.torchscript.program import Program

STAGE = PruneStage(
    stage="prune", criterion="l1_norm", allocation=Allocation(scope="local", amount=0.5)
)
_RUNTIME_TOLERANCE = 1e-3
_LEAST_SENSITIVITY = 1e-5
"""Outputs that hardly depend on the inputs prove nothing."""


def export(network: Network, form: str) -> bytes:
    """The file a user would upload."""
    torch.manual_seed(0)
    model = enliven(network.build(), network.inputs(4))
    example = network.inputs(1)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        compiled = (
            torch.jit.script(model)
            if form == "scripted"
            else torch.jit.trace(model, tuple(example), check_trace=False, strict=False)
        )
        return bytes(compiled.save_to_buffer())


def compress(upload: bytes, network: Network) -> dict[str, Any]:
    """Every figure of the case; raises what the engine raises."""
    inputs = network.inputs(1)
    started = time.perf_counter()
    program = Program.load(upload)
    loaded = time.perf_counter()
    planned = plan_channels(program, STAGE, inputs, seed=0)
    compacted_at = time.perf_counter()
    compacted = planned.compacted
    if compacted is None:
        raise RuntimeError("nothing was removed, and nobody said so")
    certificate = certified(program, planned, inputs)
    certified_at = time.perf_counter()
    before, after = parameter_count(weights_of(program)), parameter_count(weights_of(compacted))
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "compact.pt"
        compacted.save(saved)
        check_reload(compacted, saved, inputs, Path(folder))
        file_bytes = saved.stat().st_size
    return {
        "parameters_before": before,
        "parameters_after": after,
        "macs_before": count_macs(program, inputs),
        "macs_after": count_macs(compacted, inputs),
        "bytes_before": len(upload),
        "bytes_after": file_bytes,
        "load_seconds": loaded - started,
        "seconds": compacted_at - loaded,
        "certify_seconds": certified_at - compacted_at,
        "certificate": None if certificate is None else certificate.model_dump(),
        "frozen": [item.model_dump() for item in planned.frozen],
        "channels_removed": int(planned.plan.removed.size),
        "shapes": shapes_kept(upload, compacted, network),
        "sensitivity": dependence(upload, network),
        "interpreter_error": interpreter_error(compacted, network),
    }


@torch.no_grad()
def shapes_kept(upload: bytes, compacted: Program, network: Network) -> dict[str, bool]:
    """Whether the outputs have the original's shapes at two batch sizes, where it runs at them."""
    original = Program.as_uploaded(upload)
    kept = {}
    for batch in (1, 3):
        inputs = network.inputs(batch)
        try:
            expected = tensors_in(original.run(inputs))
        except RuntimeError:
            if batch == 1:
                raise
            continue  # the upload itself is bound to one batch size
        found = tensors_in(compacted.run(inputs))
        kept[str(batch)] = [x.shape for x in expected] == [x.shape for x in found]
    return kept


@torch.no_grad()
def dependence(upload: bytes, network: Network) -> float:
    """How much the original's outputs depend on its inputs."""
    original = Program.as_uploaded(upload)
    outputs = []
    for variant in (0, 1):
        inputs = [_varied(value, variant) for value in network.inputs(1)]
        outputs.append(list(tensors_in(original.run(inputs))))
    return sensitivity(*outputs)


def _varied(value: torch.Tensor, variant: int) -> torch.Tensor:
    if variant == 0:
        return value
    if value.is_floating_point():
        return torch.randn(value.shape, generator=torch.Generator().manual_seed(99))
    return value.flip(-1)


@torch.no_grad()
def interpreter_error(compacted: Program, network: Network) -> float:
    """Second check: the engine's own interpreter against the TorchScript runtime."""
    inputs = network.inputs(1)
    torch.manual_seed(0)
    runtime = compacted.run(inputs)
    torch.manual_seed(0)
    stepped = Interpreter(compacted, PlainVisitor()).run([value.clone() for value in inputs])
    return relative_error(runtime, stepped)


def verdict(result: dict[str, Any]) -> str:
    """`passed`, or what is missing."""
    lost = 1 - result["parameters_after"] / result["parameters_before"]
    if not result["certificate"]["passed"]:
        return "certificate"
    if result["sensitivity"] < _LEAST_SENSITIVITY:
        return "outputs hardly depend on inputs"
    if not all(result["shapes"].values()):
        return "output shapes"
    if result["interpreter_error"] > _RUNTIME_TOLERANCE:
        return "interpreter"
    if lost < 0.2:
        return f"only {lost:.1%} of the parameters"
    return "passed"


def run(collection: str, name: str, form: str) -> dict[str, Any]:
    """The case as a record, whatever happens."""
    torch.set_num_threads(1)
    record: dict[str, Any] = {"collection": collection, "name": name, "form": form}
    network = find(collection, name)
    try:
        upload = export(network, form)
    except Exception as error:
        return {**record, "status": "no upload", "error": _first_line(error)}
    try:
        result = compress(upload, network)
    except EngineError as error:
        return {**record, "status": "refused", "error": f"{error.title} ({error.hint})"}
    except Exception as error:
        return {
            **record,
            "status": "crashed",
            "error": _first_line(error),
            "trace": traceback.format_exc(),
        }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {**record, "status": verdict(result), **result, "peak_bytes": peak}


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("collection")
    parser.add_argument("name")
    parser.add_argument("form", choices=["traced", "scripted"])
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    print(json.dumps(run(arguments.collection, arguments.name, arguments.form)))


if __name__ == "__main__":
    main()
