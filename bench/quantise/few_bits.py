"""What weights of one, two and four bits cost in accuracy, before and after training them.

Each network is trained on scikit-learn's digits in floating point (20 epochs), then rounded in all
of its matrices and kernels, the first and the last layer included, with scales for groups of 64.
Trained for 20 epochs more it is compared with the network in floating point trained as much
longer. Accuracy is of the test split, which nothing was chosen on; the last epoch is taken.

`python -m bench.quantise.few_bits`; prints one line a network and way, mean and range over seeds.
"""

from __future__ import annotations

import dataclasses
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from secateur.recipe import FinetuneOptions
from torch import nn

from bench.papers.digits import load_splits
from bench.papers.networks import LeNet300
from bench.papers.small_networks import SmallResNet
from engine.data.splits import Split
from engine.quantisation.quantisable import quantisable
from engine.quantisation.straight_through import StraightThrough
from engine.quantisation.weight_only import Bits, WeightOnly, encode_weight_only
from engine.torchscript.program import Program
from engine.training.evaluation import evaluate
from engine.training.finetune import train
from engine.training.run import TrainingRun

SEEDS = 3
EPOCHS = 20
BITS: tuple[Bits, ...] = (1, 2, 4)
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "LeNet-300-100": LeNet300,
    "small ResNet": SmallResNet,
}
FIRST = FinetuneOptions.model_validate(
    {"epochs": EPOCHS, "keep": "last", "optimizer": {"lr": 0.02, "weight_decay": 1e-4}}
)
SECOND = FinetuneOptions.model_validate(
    {"epochs": EPOCHS, "keep": "last", "optimizer": {"kind": "adam", "lr": 1e-3}}
)


class Quiet:
    """Hears nothing of a run."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


def split_of(name: Any) -> Split:
    """Of the digits, as training takes it."""
    part = load_splits()[name]
    return Split(name, (part.images,), (f"{name}/inputs/0",), part.digits, f"{name}/targets/0")


def scripted(module: nn.Module) -> Program:
    """The module as an upload."""
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        path = Path(folder) / "model.pt"
        torch.jit.save(torch.jit.script(module.eval()), path)  # type: ignore[no-untyped-call]
        return Program.load(path)


def encode(bits: Bits, weight: torch.Tensor) -> WeightOnly:
    """A weight in few bits."""
    return encode_weight_only(weight, bits=bits, group_size=64)


def decoded(bits: Bits, weight: torch.Tensor) -> torch.Tensor:
    """What it decodes to."""
    return encode(bits, weight).decode()


def results(make: Callable[[], nn.Module], seed: int) -> dict[str, float]:
    """Accuracy by way, of one seed."""
    torch.manual_seed(seed)
    run = TrainingRun(
        options=FIRST,
        train=split_of("train"),
        validation=None,
        masks={},
        seed=seed,
        purpose="few bits",
        field="few_bits",
    )
    test = split_of("test")

    def accuracy(program: Program) -> float:
        return evaluate(program, test, device="cpu").value

    observer: Any = Quiet()
    begun = scripted(make())
    dense = train(begun, run, observer).program
    longer = dataclasses.replace(run, options=SECOND, purpose="few bits, longer")
    found = {"float": accuracy(dense)}
    found["float, trained longer"] = accuracy(train(dense, longer, observer).program)
    weights, _ = quantisable(dense)
    for bits in BITS:
        rounded = dense.twin()
        for name, weight in weights.items():
            rounded.set_tensor(name, decoded(bits, weight))
        rules = {
            name: StraightThrough(partial(decoded, bits), start=weight.detach())
            for name, weight in weights.items()
        }
        found[f"{bits} bit, rounded"] = accuracy(rounded)
        trained = train(rounded, dataclasses.replace(longer, reparametrised=rules), observer)
        found[f"{bits} bit, trained"] = accuracy(trained.program)
    return found


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    for network, make in NETWORKS.items():
        found = [results(make, seed) for seed in range(SEEDS)]
        for way in found[0]:
            values = [one[way] for one in found]
            spread = f"{min(values):.1%} to {max(values):.1%}"
            print(f"| {network} | {way} | {mean(values):.1%} | {spread} |", flush=True)


if __name__ == "__main__":
    main()
