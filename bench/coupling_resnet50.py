"""Analysis and compaction of ResNet-50 at 50 %, against Torch-Pruning.

Both get the same network with the same weights and remove half of the channels of every layer by
L1 norm, the classifier's outputs excepted. Runs alternate in one process on one thread, each on a
fresh copy made outside the clock. Timed are

    ours   analysis     couple(): one labelled run of the TorchScript program
           in all       analysis, scores, selection, compact() up to the reloaded program
    peer   analysis     DependencyGraph().build_dependency()
           in all       MagnitudePruner(...) with MagnitudeImportance(p=1), then step()

The peer is called as its README does. It edits the live Python module in place; ours starts from
a compiled program without Python source, and what it returns has been written out and read back.

    python -m bench.coupling_resnet50 [--runs 7] [--form scripted|traced] [--size 224]
"""

from __future__ import annotations

import argparse
import copy
import time
import warnings
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np
import numpy.typing as npt
import torch
import torch_pruning
from secateur.recipe import Allocation
from torch import Tensor, nn

from bench.machine import description
from engine.compaction import compact
from engine.coupling import Coupling, couple
from engine.scores import component_scores, criterion
from engine.selection.channels import Originals, Target, select_channels
from engine.torchscript.program import Program
from tests.zoo import resnet50

AMOUNT = 0.5


def compile_model(model: nn.Module, inputs: Tensor, form: str) -> Program:
    """The program a user would upload."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        compiled = torch.jit.script(model) if form == "scripted" else torch.jit.trace(model, inputs)
        return Program.load(compiled.save_to_buffer())


def our_compaction(program: Program, inputs: Sequence[Tensor]) -> Program:
    """Everything between an uploaded program and the compact one."""
    coupling = couple(program, inputs)
    return compact(program, coupling, our_choice(program, coupling), inputs)


def our_choice(program: Program, coupling: Coupling) -> npt.NDArray[np.int64]:
    """Component ids of half of every group, lowest L1 norm first."""
    scores = component_scores(
        coupling,
        program.tensors(),
        criterion("l1_norm"),
        aggregate="mean",
        normalize="none",
        seed=0,
    )
    target = Target(Allocation(amount=AMOUNT), Originals.of(coupling.groups))
    return select_channels(coupling, scores, target).removed


def peer_pruning(model: nn.Module, inputs: Tensor) -> nn.Module:
    """The peer's own recipe: build the graph, rank, remove."""
    classifier = [
        module
        for module in model.modules()
        if isinstance(module, nn.Linear) and module.out_features == 1000
    ]
    pruner = torch_pruning.pruner.MagnitudePruner(
        model,
        inputs,
        importance=torch_pruning.importance.MagnitudeImportance(p=1),
        pruning_ratio=AMOUNT,
        ignored_layers=classifier,
    )
    pruner.step()
    return model


def peer_analysis(model: nn.Module, inputs: Tensor) -> None:
    """The peer's dependency graph alone."""
    torch_pruning.DependencyGraph().build_dependency(model, example_inputs=inputs)


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def size(tensors: Sequence[Tensor]) -> int:
    """Elements in all."""
    return sum(tensor.numel() for tensor in tensors)


def run(runs: int, form: str, side: int) -> dict[str, list[float]]:
    """Times by name, `runs` of each, taken alternately after one round to warm up."""
    torch.manual_seed(0)
    model = resnet50().eval()
    inputs = torch.randn(1, 3, side, side)
    program = compile_model(model, inputs, form)
    data = program.to_bytes()

    def forward() -> None:
        with torch.no_grad():
            model(inputs)

    def fresh() -> Program:
        return Program.load(data)

    compacted = our_compaction(fresh(), [inputs])
    pruned = peer_pruning(copy.deepcopy(model), inputs)
    print(f"parameters before    {size(list(model.parameters())):>12,}")
    print(f"parameters, ours     {size(list(compacted.parameters().values())):>12,}")
    print(f"parameters, peer     {size(list(pruned.parameters())):>12,}")

    times: dict[str, list[float]] = {
        name: [] for name in ("forward", "our analysis", "our all", "peer analysis", "peer all")
    }
    for _ in range(runs):
        ours, theirs, ours_whole, theirs_whole = (
            fresh(),
            copy.deepcopy(model),
            fresh(),
            copy.deepcopy(model),
        )
        times["forward"].append(seconds(forward))
        times["our analysis"].append(seconds(lambda p=ours: couple(p, [inputs])))
        times["peer analysis"].append(seconds(lambda m=theirs: peer_analysis(m, inputs)))
        times["our all"].append(seconds(lambda p=ours_whole: our_compaction(p, [inputs])))
        times["peer all"].append(seconds(lambda m=theirs_whole: peer_pruning(m, inputs)))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--form", choices=("scripted", "traced"), default="scripted")
    parser.add_argument("--size", type=int, default=224, help="pixels of a side of the example")
    options = parser.parse_args()
    torch.set_num_threads(1)

    times = run(options.runs, options.form, options.size)
    unit = median(times["forward"])
    print(
        f"\n{'median of ' + str(options.runs):<20}{'ms':>10}{'min':>10}{'max':>10}{'forwards':>10}"
    )
    for name, taken in times.items():
        middle = median(taken)
        print(
            f"{name:<20}{middle * 1e3:>10.1f}{min(taken) * 1e3:>10.1f}"
            f"{max(taken) * 1e3:>10.1f}{middle / unit:>10.2f}"
        )
    for part in ("analysis", "all"):
        ratio = median(times[f"peer {part}"]) / median(times[f"our {part}"])
        print(f"peer / ours, {part:<8}{ratio:>9.2f}")
    print(f"\n{options.form}, batch 1 of {options.size} pixels; {description('torch-pruning')}")


if __name__ == "__main__":
    main()
