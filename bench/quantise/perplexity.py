"""What fewer bits cost a language model: perplexity of the files that jobs make.

The network is the decoder of the benchmark of recoveries, trained on characters of Python's
standard library. Formats that are chosen by measurement are chosen on the validation files, and
perplexities are of the test files, which nothing has seen, computed from the file of each job
loaded by stock torch.

`python -m bench.quantise.perplexity [--seeds 0]`; the last line holds 4 bits in groups of 64
against its target.
"""

from __future__ import annotations

import argparse
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file
from secateur.recipe import Recipe
from torch import Tensor, nn

from bench.machine import description
from bench.papers.jobs import Bystander
from bench.recovery.dense import judged, trained
from bench.recovery.language import TASK
from engine.job import JobInput
from engine.pipeline import compress

TARGET = 1.03
JUDGED = "4 bits, groups of 64"
RESULTS = Path(__file__).parent / "perplexity.json"

_FOUR = {"scheme": "weight_only", "bits": 4, "group_size": 64}
STAGES: dict[str, dict[str, Any]] = {
    "bf16, computed": {"scheme": "bf16", "compute": "half"},
    "8 bits, groups of 64": {"scheme": "weight_only", "bits": 8, "group_size": 64},
    JUDGED: _FOUR,
    "4 bits, groups of 64, narrowed": _FOUR | {"clip": "mse"},
    "2 bits, groups of 64": _FOUR | {"bits": 2},
    "codebook of 16": {"scheme": "codebook", "size": 16},
    "mixed, a tenth of the bytes": {
        "scheme": "mixed_precision",
        "budget": {"bytes": 0.1},
        "clip": "mse",
    },
    "mixed, loss up by ln 1.03": {
        "scheme": "mixed_precision",
        "budget": {"max_loss_increase": math.log(TARGET), "samples": None},
        "clip": "mse",
    },
    "2 bits that fall back, loss up by ln 1.03": _FOUR
    | {
        "bits": 2,
        "clip": "mse",
        "fall_back": {"max_loss_increase": math.log(TARGET), "samples": None},
    },
}
"""Stages of one job each, by what they do."""


def quantised(upload: nn.Module, stage: dict[str, Any], seed: int) -> dict[str, float]:
    """Perplexity on the test files and bytes of the file that a job of one stage makes."""
    recipe = Recipe.model_validate(
        {
            "measure": {"batch_sizes": [1], "runs": 5},
            "objective": dict(TASK.objective),
            "stages": [{"stage": "quantize", **stage}],
            "seed": seed,
        }
    )
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "work").mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            example = TASK.parts()["train"].inputs[:2]
            torch.jit.trace(upload, (example,)).save(str(folder / "upload.pt"))
        save_file(
            {"validation/inputs/0": TASK.parts()["validation"].inputs}, folder / "data.safetensors"
        )
        job = JobInput(
            model=folder / "upload.pt",
            recipe=recipe,
            workdir=folder / "work",
            dataset=folder / "data.safetensors",
        )
        result = compress(job, Bystander())
        file = next(item.path for item in result.artifacts if item.kind == "model")
        figures = judged(_forward(torch.jit.load(str(file))), TASK, "test")
        return {
            "perplexity": figures["perplexity"],
            "ratio": result.report.before.file_bytes / file.stat().st_size,
            "bits": result.report.quantization[0].bits,
        }


def _forward(module: torch.jit.ScriptModule) -> Callable[[Tensor], Tensor]:
    def forward(inputs: Tensor) -> Tensor:
        outputs: Tensor = module(inputs)
        return outputs

    return forward


def main() -> None:
    """Train or read the networks, run the jobs, print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    seeds = parser.parse_args().seeds
    torch.set_num_threads(1)
    networks = [trained(TASK, seed)[0] for seed in seeds]
    dense = [judged(network, TASK, "test")["perplexity"] for network in networks]
    found = {
        name: [
            quantised(network, stage, seed) for network, seed in zip(networks, seeds, strict=True)
        ]
        for name, stage in STAGES.items()
    }
    RESULTS.write_text(
        json.dumps({"machine": description(), "seeds": seeds, "dense": dense, **found}, indent=1)
        + "\n",
        encoding="utf-8",
    )
    print(description())
    print(f"float32: perplexity {mean(dense):.4f}, mean of seeds {seeds}")
    worst = {}
    for name, runs in found.items():
        ratios = [one["perplexity"] / before for one, before in zip(runs, dense, strict=True)]
        worst[name] = max(ratios)
        print(
            f"{name}: perplexity {mean(one['perplexity'] for one in runs):.4f}, "
            f"{mean(ratios):.4f} of float32 (at most {worst[name]:.4f}), weights in "
            f"{mean(one['bits'] for one in runs):.2f} bits, file smaller by "
            f"{mean(one['ratio'] for one in runs):.2f}"
        )
    verdict = "met" if worst[JUDGED] <= TARGET else "missed"
    print(
        f"{JUDGED}: perplexity at most {worst[JUDGED]:.4f} of float32, target {TARGET}: {verdict}"
    )


if __name__ == "__main__":
    main()
