"""Time and memory against Torch-Pruning, over torchvision and timm.

    python -m bench.zoo.speed [--collection NAME] [--only PATTERN] [--results FILE]

Both remove half of the channels of every layer by L1 norm. One process a model, one thread; the
two sides take turns, three times each, once where the first time is above 20 s. Timed are

    ours    couple, scores, selection, compact on a loaded program traced from the model
    peer    MagnitudePruner(..., MagnitudeImportance(p=1), pruning_ratio=0.5) and its step()

Seconds are processor time, which for one thread is the time on a quiet machine, and which other
work on the machine does not lengthen. A fresh program is loaded, or the module copied, before each
run and outside the clock; the time of loading is kept apart. The classifier is left out for the
peer as in its README: linear layers of 1000 outputs, and whatever layer ran last with as many
outputs as the model has.

Peak memory comes from two more processes, one for each side, that do the work once. Each holds
what its side needs and no more: ours the file's program, the peer's the Python module and the
library that defines it. `peak_ratio` compares the largest resident set of the whole process, for
that is what must fit into the machine, model included. `growth_ratio` compares what the work adds
above the model. The kernel's high-water mark is reset once the model is there, so that neither
building nor loading counts.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from bench.machine import description
from bench.zoo.case import STAGE, export
from bench.zoo.lists import CASES, Case
from bench.zoo.memory import peak_bytes, reset_peak, resident_bytes
from bench.zoo.networks import Network, find
from bench.zoo.table import RESULTS, SPEED, compacted, key, last_line, load, save
from engine.pipeline.prune import plan_channels
from engine.structure import tensors_in
from engine.torchscript.program import Program

RUNS = 3
_LONG_SECONDS = 20.0
_PEER_SECONDS = 120
_PROCESS_SECONDS = 1200
_COLLECTIONS = ("torchvision", "timm")


class PeerTookTooLong(BaseException):
    """No `Exception`, so that no handler in the peer takes it for its own."""


def ours(program: Program, inputs: list[Tensor]) -> Program:
    """Everything between a loaded program and the compact one."""
    compact = plan_channels(program, STAGE, inputs, seed=0).compacted
    if compact is None:
        raise RuntimeError("nothing was removed")
    return compact


def peer(model: nn.Module, inputs: list[Tensor], ignored: list[nn.Module]) -> nn.Module:
    """The peer's own recipe: build the graph, rank, remove."""
    import torch_pruning  # noqa: PLC0415  ours must not pay for it in memory

    pruner = torch_pruning.pruner.MagnitudePruner(
        model,
        inputs,
        importance=torch_pruning.importance.MagnitudeImportance(p=1),
        pruning_ratio=0.5,
        ignored_layers=ignored,
    )
    pruner.step()
    return model


def classifiers(model: nn.Module, inputs: list[Tensor]) -> list[str]:
    """Names of the layers whose outputs are the model's."""
    ran: list[tuple[str, int]] = []
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            size = module.out_features if isinstance(module, nn.Linear) else module.out_channels
            note = (name, size)
            hooks.append(module.register_forward_hook(lambda *_, note=note: ran.append(note)))
    with torch.no_grad():
        outputs = tensors_in(model(*inputs))
    for hook in hooks:
        hook.remove()
    found = {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == 1000
    }
    for output in outputs:
        sizes = set(output.shape[1:])
        found.update([name for name, size in ran if size in sizes][-1:])
    return sorted(found)


def build(network: Network) -> nn.Module:
    """The module with the weights of the zoo."""
    torch.manual_seed(0)
    return network.build().eval()


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises inside the block once the time is over, again every second until it is left."""

    def over(*_: object) -> None:
        raise PeerTookTooLong

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of processor time, and the result."""
    gc.collect()
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def times(network: Network, upload: bytes, model: nn.Module) -> dict[str, Any]:
    """All times of one model, both sides by turns, and what came of the peer's work."""
    inputs = network.inputs(1)
    names = classifiers(model, inputs)
    own: list[float] = []
    loading: list[float] = []
    theirs: list[float] = []
    status = "ok"
    after = None
    for turn in range(RUNS):
        if turn == 0 or own[0] <= _LONG_SECONDS:
            taken, program = timed(lambda: Program.load(upload))
            loading.append(taken)
            own.append(timed(lambda p=program: ours(p, network.inputs(1)))[0])
            del program
        if status == "ok" and (turn == 0 or theirs[0] <= _LONG_SECONDS):
            fresh = copy.deepcopy(model)
            ignored = [fresh.get_submodule(name) for name in names]
            try:
                with limited(_PEER_SECONDS):
                    taken, pruned = timed(lambda m=fresh, i=ignored: peer(m, network.inputs(1), i))
                theirs.append(taken)
            except PeerTookTooLong:
                status = f"takes over {_PEER_SECONDS} s"
                continue
            except Exception as error:
                status = f"raises {type(error).__name__}"
                continue
            if turn == 0:
                status, after = judged(model, pruned, inputs)
    record: dict[str, Any] = {
        "our_seconds": median(own),
        "our_load_seconds": median(loading),
        "peer_status": status,
    }
    if theirs:
        record["peer_seconds"] = median(theirs)
        record["peer_parameters_after"] = after
    if status == "ok":  # a ratio says something only where both sides did the work
        record["seconds_ratio"] = record["our_seconds"] / record["peer_seconds"]
    return record


def judged(model: nn.Module, pruned: nn.Module, inputs: list[Tensor]) -> tuple[str, int]:
    """Whether the peer's result is a smaller model that runs, and its parameters."""
    before = sum(item.numel() for item in model.parameters())
    after = sum(item.numel() for item in pruned.parameters())
    try:
        with torch.no_grad():
            expected = tensors_in(model(*inputs))
            found = tensors_in(pruned(*inputs))
    except Exception:
        return "result does not run", after
    if [item.shape for item in expected] != [item.shape for item in found]:
        return "result has other output shapes", after
    return ("ok" if after < before else "removes nothing"), after


def time_case(collection: str, name: str, upload_at: Path) -> dict[str, Any]:
    """In a process of its own; leaves the upload behind for the memory process."""
    network = find(collection, name)
    upload = export(network, "traced")
    upload_at.write_bytes(upload)
    return times(network, upload, build(network))


def our_memory(collection: str, name: str, upload_at: Path) -> dict[str, int]:
    """Peak of our side."""
    inputs = find(collection, name).inputs(1)
    program = Program.load(upload_at)
    return _memory(lambda: ours(program, inputs))


def peer_memory(collection: str, name: str, _upload_at: Path) -> dict[str, int]:
    """Peak of the peer's side."""
    network = find(collection, name)
    model = build(network)
    inputs = network.inputs(1)
    ignored = [model.get_submodule(item) for item in classifiers(model, inputs)]
    with limited(_PEER_SECONDS):
        return _memory(lambda: peer(model, inputs, ignored))


def _memory(work: Callable[[], object]) -> dict[str, int]:
    gc.collect()
    reset_peak()
    start = resident_bytes()
    result = work()
    peak = peak_bytes()
    del result
    return {"peak_bytes": peak, "growth_bytes": max(peak - start, 1)}


_PARTS = {"times": time_case, "our_memory": our_memory, "peer_memory": peer_memory}


def part(name: str, case: Case, upload_at: Path) -> dict[str, Any]:
    """One part of a case in a process of its own; empty where that fails."""
    command = [sys.executable, "-m", "bench.zoo.speed", "--part", name, str(upload_at)]
    command += [case.collection, case.name]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_PROCESS_SECONDS,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"no answer in {_PROCESS_SECONDS} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        return {"failed": last_line(done.stderr) or f"status {done.returncode}"}
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer


def measure(case: Case) -> dict[str, Any]:
    """Everything about one model."""
    with tempfile.TemporaryDirectory() as folder:
        upload_at = Path(folder) / "upload.pt"
        found = part("times", case, upload_at)
        if "failed" in found:
            return found
        mine = part("our_memory", case, upload_at)
        peers = part("peer_memory", case, upload_at) if found["peer_status"] == "ok" else {}
    for side, memory in (("our", mine), ("peer", peers)):
        found.update({f"{side}_{name}": memory[name] for name in memory if name != "failed"})
    for name in ("peak", "growth"):
        if f"our_{name}_bytes" in found and f"peer_{name}_bytes" in found:
            found[f"{name}_ratio"] = found[f"our_{name}_bytes"] / found[f"peer_{name}_bytes"]
    found["measured_on"] = description("torch-pruning")
    return found


def line_of(case: Case, found: dict[str, Any]) -> str:
    """What the run prints for a model."""
    if "failed" in found:
        return f"{case.name:36s} failed: {found['failed']}"
    head = f"{case.name:36s} {found['our_seconds']:7.2f} s (load {found['our_load_seconds']:5.2f})"
    if "seconds_ratio" not in found:
        return f"{head}  peer {found['peer_status']}"
    return (
        f"{head}  peer {found['peer_seconds']:7.2f} s  ratio {found['seconds_ratio']:5.2f}  "
        f"peak {found.get('peak_ratio', 0):4.2f}  growth {found.get('growth_ratio', 0):5.2f}"
    )


def summary(found: list[dict[str, Any]]) -> str:
    """The figures that have targets."""
    done = [item for item in found if "failed" not in item]
    ratios = [item["seconds_ratio"] for item in done if "seconds_ratio" in item]
    peaks = [item["peak_ratio"] for item in done if "peak_ratio" in item]
    lines = [f"{len(done)} models measured, {len(ratios)} of them pruned by the peer"]
    if ratios:
        above = sum(ratio > 1 for ratio in ratios)
        lines.append(
            f"time, ours / peer: median {median(ratios):.2f}, worst {max(ratios):.2f}, "
            f"{above} above 1"
        )
    if peaks:
        above = sum(ratio > 1 for ratio in peaks)
        lines.append(
            f"peak memory, ours / peer: median {median(peaks):.2f}, worst {max(peaks):.2f}, "
            f"{above} above 1"
        )
    if done:
        lines.append(f"our longest time: {max(item['our_seconds'] for item in done):.1f} s")
    return "\n".join(lines)


def keep(results: Path, case: Case, found: dict[str, Any]) -> None:
    """Add the figures to the record of the case, in the place of earlier ones."""
    if "failed" in found:
        return
    records = load(results)
    names = {"collection": case.collection, "name": case.name, "form": case.form}
    record = records.get(key(names), {**names, "status": "not run"})
    speed = {name: found[name] for name in SPEED if name in found}
    records[key(names)] = compacted(record, speed)
    save(results, records)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--collection", choices=_COLLECTIONS)
    parser.add_argument("--only", default="*", help="pattern of names, or several with commas")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--part", nargs=4, metavar=("PART", "UPLOAD", "COLLECTION", "NAME"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.part:
        warnings.simplefilter("ignore")
        name, upload_at, collection, model = arguments.part
        print(json.dumps(_PARTS[name](collection, model, Path(upload_at))))
        return
    patterns = arguments.only.split(",")
    chosen = [
        case
        for case in CASES
        if case.collection in _COLLECTIONS
        and case.form == "traced"
        and arguments.collection in (None, case.collection)
        and any(fnmatch(case.name, pattern) for pattern in patterns)
    ]
    everything = []
    for case in chosen:
        found = measure(case)
        keep(arguments.results, case, found)
        everything.append(found)
        print(line_of(case, found), flush=True)
    print(summary(everything))


if __name__ == "__main__":
    main()
