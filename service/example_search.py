"""A request for a search and the report it leaves, as the API's description shows them."""

from __future__ import annotations

from typing import Any

from service.example_report import REPORT
from service.examples import JOB_CREATE

AMOUNT = "stages.0.allocation.amount"
_SEARCH = {
    "space": {
        AMOUNT: {"low": 0.3, "high": 0.8},
        "stages.0.criterion": ["l1_norm", "geometric_median"],
    },
    "objectives": ["accuracy", "macs"],
    "bounds": {"accuracy": 0.96},
    "trials": 3,
    "parallel": 2,
    "sampler": "tpe",
}

SEARCH_CREATE: dict[str, Any] = {
    "model_id": JOB_CREATE["model_id"],
    "dataset_id": JOB_CREATE["dataset_id"],
    "recipe": {
        "stages": [
            {"stage": "prune", "allocation": {"amount": 0.5}},
            {"stage": "finetune", "epochs": 2},
        ],
        "search": _SEARCH,
    },
}


def _trial(
    number: int, amount: float, criterion: str, accuracy: float, macs: int, **changes: Any
) -> dict[str, Any]:
    return {
        "number": number,
        "job_id": f"job_01kaxq1a0{number}5v2t7c9d1r4w8s6e",
        "state": "succeeded",
        "parameters": {AMOUNT: amount, "stages.0.criterion": criterion},
        "values": {"accuracy": accuracy, "loss": 0.0758, "macs": macs, "params": macs // 10,
            "file_bytes": 67_100, "latency_ms": 0.154},
        "reason": "",
        "elapsed_seconds": 9.4,
        "artifacts": {"model": f"art_01kaxq1a0{number}6e5v2t7c9d1r4w8s"},
    } | changes  # fmt: skip


_SUMMARY = (
    "3 trials, 2 of them on the front, 1 infeasible; trial 0 is at the knee: accuracy 0.9805, "
    "macs 205310"
)
_TRIALS = [
    _trial(0, 0.374_54, "l1_norm", 0.9805, 205_310),
    _trial(1, 0.598_66, "geometric_median", 0.9749, 122_906),
    _trial(2, 0.779_12, "l1_norm", 0.9331, 51_240, state="infeasible",
        reason="`accuracy` is 0.9331, at least 0.96 is asked"),
]  # fmt: skip

SEARCH_REPORT: dict[str, Any] = {
    "version": 1,
    "kind": "search",
    "summary": _SUMMARY,
    "warnings": [],
    "objectives": [
        {"name": "accuracy", "direction": "maximize"},
        {"name": "macs", "direction": "minimize"},
    ],
    "sampler": "tpe",
    "before": {"accuracy": 0.9749, "loss": 0.0689, "macs": 416_520, "params": 61_706,
        "file_bytes": 262_800, "latency_ms": 0.173},
    "trials": _TRIALS,
    "front": [0, 1],
    "best": {"accuracy": 0, "macs": 1},
    "knee": 0,
    "chosen": 0,
    "chosen_by": "knee",
    "recipe": SEARCH_CREATE["recipe"],
    "provenance": REPORT["provenance"],
}  # fmt: skip
