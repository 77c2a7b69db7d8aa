"""Accuracy after pruning and fine-tuning, ours and the peer's, from the same trained networks.

    python -m bench.accuracy [--seeds N] [--network NAME] [--keep SHARE] [--results FILE]

For every network, seed and target each side prunes one copy of the same trained network with each
of its candidates, at matched MACs, and fine-tunes it by the same loop for the same epochs in the
same order of batches. A record a run is appended to the results; runs that are there already are
left out, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.accuracy import ours, peer
from bench.accuracy.candidates import OURS, PEER, Candidate
from bench.accuracy.data import splits
from bench.accuracy.matching import count_macs
from bench.accuracy.networks import NETWORKS
from bench.accuracy.table import PILOTS, RESULTS, Chosen, Key, choose, load
from bench.accuracy.training import judged, train
from bench.machine import description
from engine.errors import EngineError

KEEP = (0.5, 0.25)
DENSE = Path("build/accuracy")
SIDES = {"ours": (ours, OURS), "peer": (peer, PEER)}


@cache
def dense(name: str, seed: int) -> tuple[nn.Module, float]:
    """The trained network of a seed, kept in `build/`, and its accuracy on the test part."""
    network, parts = NETWORKS[name], splits(seed)
    torch.manual_seed(seed)
    model = network.build()
    file = DENSE / f"{name}-{seed}.pt"
    if file.exists():
        model.load_state_dict(torch.load(file, weights_only=True))
    else:
        model.train()
        train(model, model.parameters(), parts.train, epochs=network.epochs, seed=seed)
        DENSE.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), file)
    model.eval()
    return model, judged(model, parts.test).accuracy


def measure(name: str, seed: int, keep: float, side: str, candidate: Candidate) -> dict[str, Any]:
    """One run as a record."""
    parts = splits(seed)
    model, accuracy = dense(name, seed)
    module, _ = SIDES[side]
    record: dict[str, Any] = {
        "network": name,
        "seed": seed,
        "keep": keep,
        "side": side,
        "candidate": candidate.name,
        "epochs": NETWORKS[name].finetuning,
        "macs_before": count_macs(model, parts.test.images[:1]),
        "dense": accuracy,
    }
    started = time.process_time()
    try:
        matched = module.prune(
            model, candidate, keep * record["macs_before"], parts.train, seed=seed
        )
    except EngineError as error:
        return record | {"refused": error.title}
    pruned_at = time.process_time()
    untrained = judged(module.forward(matched.result), parts.test)
    result = module.finetuned(
        matched.result, parts.train, epochs=NETWORKS[name].finetuning, seed=seed
    )
    finetuned_at = time.process_time()
    validation = judged(module.forward(result), parts.validation)
    test = judged(module.forward(result), parts.test)
    return record | {
        "macs_after": matched.macs,
        "pruned": untrained.accuracy,
        "validation": validation.accuracy,
        "validation_loss": validation.loss,
        "test": test.accuracy,
        "test_loss": test.loss,
        "prune_seconds": round(pruned_at - started, 2),
        "finetune_seconds": round(finetuned_at - pruned_at, 2),
    }


def measured(arguments: argparse.Namespace, seeds: range, chosen: Chosen | None) -> None:
    """Make the records that are missing, seed by seed, so that a part of them is a smaller whole.

    Args:
        seeds: to measure.
        chosen: the only candidate of each case; None to try all.
    """
    done = set(load(arguments.results))
    machine = description("torch-pruning")
    for seed, name, keep, side in product(seeds, arguments.network, arguments.keep, arguments.side):
        for candidate in SIDES[side][1]:
            if chosen is not None and chosen.get((name, keep, side)) != candidate.name:
                continue
            identity: Key = (name, seed, keep, side, candidate.name)
            if identity in done:
                continue
            record = measure(name, seed, keep, side, candidate) | {"measured_on": machine}
            with arguments.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record, separators=(",", ":")) + "\n")
            print(line_of(record), flush=True)


def line_of(record: dict[str, Any]) -> str:
    """What the run prints."""
    head = "{network:9s} {seed:2d} {keep:4.2f} {side} {candidate:30s}".format(**record)
    if "refused" in record:
        return f"{head} {record['refused']}"
    return (
        f"{head} MACs {record['macs_after'] / record['macs_before']:.3f}"
        f"  pruned {record['pruned']:.3f}  validation {record['validation']:.3f}"
        f"  test {record['test']:.3f}  {record['prune_seconds']} s {record['finetune_seconds']} s"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--pilots", type=int, default=PILOTS, help="seeds that candidates are chosen on"
    )
    parser.add_argument("--seeds", type=int, default=5, help="further seeds, which are reported")
    parser.add_argument("--network", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--keep", nargs="+", type=float, default=list(KEEP))
    parser.add_argument("--side", nargs="+", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    measured(arguments, range(arguments.pilots), None)
    chosen = choose(load(arguments.results).values(), range(arguments.pilots))
    reported = range(arguments.pilots, arguments.pilots + arguments.seeds)
    measured(arguments, reported, chosen)


if __name__ == "__main__":
    main()
