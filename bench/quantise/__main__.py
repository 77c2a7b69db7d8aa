"""What storing weights in few bits saves in files, and what decoding them costs.

Files are what a job writes: the whole archive, code and all. Latencies are processor time on one
thread, medians over rounds of ratios within a round; the dense program runs twice in every round,
which shows how much of a ratio is noise.

`python -m bench.quantise [--rounds 21]`; the last lines give the ratios against their targets.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from bench.machine import description
from bench.quantise.latency import ratios
from bench.quantise.networks import NETWORKS, Network
from bench.quantise.schemes import SCHEMES, stored
from engine.quantisation.packaging import Decode

WAYS: tuple[Decode, ...] = ("at_load", "at_use")
BATCHES = (1, 16)
TIMED = ("8 bits, a scale a channel", "4 bits, groups of 64", "a tenth left, 4 bits")
LATENCY_TARGET = 1.03
RESULTS = Path(__file__).parent / "results.json"


def sizes(network: Network) -> dict[str, dict[str, float]]:
    """How many times smaller files are, by scheme and time of decoding."""
    program = network.program()
    dense = len(program.to_bytes())
    return {
        name: {way: dense / len(stored(program, scheme, way)[1].to_bytes()) for way in WAYS}
        for name, scheme in SCHEMES.items()
    }


def latencies(network: Network, scheme: str, batch: int, rounds: int) -> dict[str, float]:
    """Time of a run over that of the dense program with the same weights."""
    program = network.program()
    packed = {way: stored(program, SCHEMES[scheme], way) for way in WAYS}
    dense = packed["at_load"][0].to_bytes()
    files = {"dense": dense, "dense again": dense}
    files |= {way: file.to_bytes() for way, (_, file) in packed.items()}
    torch.manual_seed(1)
    return ratios(files, network.example(batch), rounds)


def main() -> None:
    """Measure, print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, Any] = {"machine": description(), "rounds": asked.rounds}
    figures["sizes"] = {name: sizes(network) for name, network in NETWORKS.items()}
    figures["latencies"] = {
        name: {
            scheme: {
                str(batch): latencies(network, scheme, batch, asked.rounds) for batch in BATCHES
            }
            for scheme in TIMED
        }
        for name, network in NETWORKS.items()
    }
    RESULTS.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(figures["machine"])
    for name, by_scheme in figures["latencies"].items():
        for scheme, by_batch in by_scheme.items():
            for batch, found in by_batch.items():
                print(
                    f"{name}, {scheme}, batch {batch}: time of a run decoded at load "
                    f"{found['at_load']:.3f} of the dense program's (itself again "
                    f"{found['dense again']:.3f}), at use {found['at_use']:.2f}"
                )
    for name, found in figures["sizes"].items():
        for scheme, ratio in found.items():
            target = SCHEMES[scheme].target
            met = (
                "" if target is None else f", target {target}: {_met(min(ratio.values()), target)}"
            )
            ways = ", ".join(f"{ratio[way]:.2f} decoded {way.replace('_', ' ')}" for way in WAYS)
            print(f"{name}, {scheme}: file smaller by {ways}{met}")
    worst = max(
        found["at_load"]
        for by_scheme in figures["latencies"].values()
        for by_batch in by_scheme.values()
        for found in by_batch.values()
    )
    verdict = "met" if worst <= LATENCY_TARGET else "missed"
    print(f"decoded at load, slowest of all: {worst:.3f}, target {LATENCY_TARGET}: {verdict}")


def _met(ratio: float, target: float) -> str:
    return "met" if ratio >= target else "missed"


if __name__ == "__main__":
    main()
