"""Examples of a score job and its report, for the API description."""

from __future__ import annotations

from typing import Any

from secateur.report_score import UNCERTIFIED

from service.example_report import REPORT
from service.examples import JOB_CREATE

_RATIOS = [0.25, 0.5, 0.75]
_STAGE: dict[str, Any] = {
    "stage": "score",
    "granularity": "channel",
    "criterion": "l1_norm",
    "ratios": _RATIOS,
    "measure": "accuracy",
}

SCORE_CREATE: dict[str, Any] = {
    "model_id": JOB_CREATE["model_id"],
    "dataset_id": JOB_CREATE["dataset_id"],
    "recipe": {"version": 1, "stages": [_STAGE]},
    "type": "score",
    "name": "which layers hold the accuracy",
}


def _accuracy(correct: int) -> dict[str, Any]:
    return {"correct": correct, "total": 360, "top1": round(correct / 360, 4)}


def _layer(name: str, units: int, correct: list[int], losses: list[float]) -> dict[str, Any]:
    lost = sum(351 - right for right in correct) / 360 / len(correct)
    return {
        "name": name,
        "members": [name],
        "units": units,
        "removable": units - 1,
        "sensitivity": round(lost, 4),
        "points": [
            {
                "ratio": ratio,
                "removed": min(round(ratio * units), units - 1),
                "drift": None,
                "loss": loss,
                "accuracy": _accuracy(right),
                "elapsed_ms": 21.4,
            }
            for ratio, right, loss in zip(_RATIOS, correct, losses, strict=True)
        ],
    }


SCORE_REPORT: dict[str, Any] = {
    "version": 1,
    "kind": "score",
    "summary": "2 layers scanned by accuracy at 3 ratios: `conv1` is the most sensitive, `fc1` the "
    "least",
    "without_certificate": UNCERTIFIED,
    "warnings": [],
    "scans": [
        {
            "stage_index": 0,
            "granularity": "channel",
            "criterion": "l1_norm",
            "measure": "accuracy",
            "split": "validation",
            "samples": 360,
            "ratios": _RATIOS,
            "loss": 0.0689,
            "accuracy": _accuracy(351),
            "layers": [
                _layer("conv1", 8, [330, 240, 126], [0.2214, 0.9713, 2.4102]),
                _layer("fc1", 120, [351, 349, 337], [0.0702, 0.0791, 0.1534]),
            ],
            "frozen": [],
            "elapsed_ms": 128.4,
        }
    ],
    "provenance": REPORT["provenance"],
}
