"""Example of a report, for the API description."""

from __future__ import annotations

from typing import Any

from service.examples import RECIPE, SHA256


def _latency(batch_size: int, p50: float) -> dict[str, Any]:
    return {
        "batch_size": batch_size,
        "p50": p50,
        "p90": round(1.1 * p50, 3),
        "p99": round(1.4 * p50, 3),
        "runs": 30,
    }


def _accuracy(correct: int) -> dict[str, Any]:
    return {"correct": correct, "total": 360, "top1": round(correct / 360, 4)}


def _state(state: str, label: str, counts: list[int], zeros: int) -> dict[str, Any]:
    return {
        "state": state,
        "label": label,
        "total": {"name": "", "counts": counts, "zeros": zeros, "not_finite": 0},
        "layers": [
            {
                "name": "conv1.weight",
                "counts": [count // 120 for count in counts],
                "zeros": 0,
                "not_finite": 0,
            }
        ],
    }


REPORT: dict[str, Any] = {
    "version": 1,
    "before": {
        "file_bytes": 263_168,
        "memory_bytes": 246_824,
        "parameters": 61_706,
        "nonzero_parameters": 61_706,
        "macs": 416_520,
        "loss": 0.061,
        "accuracy": _accuracy(354),
        "evaluation_ms": 41.0,
        "latency_ms": [_latency(1, 0.21), _latency(32, 1.9)],
    },
    "stages": [
        {
            "file_bytes": 87_552,
            "memory_bytes": 63_640,
            "parameters": 15_910,
            "nonzero_parameters": 15_910,
            "macs": 112_800,
            "loss": 0.064,
            "accuracy": _accuracy(354),
            "evaluation_ms": 18.0,
            "latency_ms": [],
            "state": "compacted",
            "masked": {
                "file_bytes": 263_168,
                "memory_bytes": 246_824,
                "parameters": 61_706,
                "nonzero_parameters": 15_910,
                "macs": 416_520,
                "loss": 0.064,
                "accuracy": _accuracy(354),
                "evaluation_ms": 40.0,
                "latency_ms": [],
                "form": "zeroed_slices",
                "elapsed_ms": 72.0,
            },
            "stage": "prune",
            "label": "prune round 4 of 4",
            "stage_index": 0,
            "round": 4,
            "removed": 31,
            "elapsed_ms": 2_140.0,
        }
    ],
    "after": {
        "file_bytes": 87_552,
        "memory_bytes": 63_640,
        "parameters": 15_910,
        "nonzero_parameters": 15_910,
        "macs": 112_800,
        "loss": 0.058,
        "accuracy": _accuracy(355),
        "evaluation_ms": 18.0,
        "latency_ms": [_latency(1, 0.15), _latency(32, 0.8)],
    },
    "certificate": {
        "passed": True,
        "kind": "exact",
        "max_relative_error": 4.1e-16,
        "restricted_error": None,
        "mixed_by": [],
        "batch_sizes": [1, 3],
        "reloaded_in_fresh_process": True,
        "detail": "",
    },
    "frozen": [
        {
            "layer": "fc3",
            "op": "output",
            "reason": "the outputs of the model keep their shape",
            "channels": 10,
        }
    ],
    "layers": [
        {
            "name": "conv1.weight",
            "shape_before": [20, 1, 5, 5],
            "shape_after": [10, 1, 5, 5],
            "nonzero_after": 250,
            "removed_fraction": 0.5,
            "compression_ratio": 2.0,
        }
    ],
    "histogram_before": {"edges": [-0.3, 0.0, 0.3], "counts": [30_810, 30_896]},
    "histogram_after": {"edges": [-0.3, 0.0, 0.3], "counts": [7_940, 7_970]},
    "weights": {
        "edges": [-0.3, -0.15, 0.0, 0.15, 0.3],
        "states": [
            _state("original", "original", [6_160, 24_650, 24_736, 6_160], 0),
            _state("pruned", "prune round 4 of 4", [2_380, 5_560, 5_590, 2_380], 0),
        ],
        "unlisted_layers": 0,
    },
    "curve": [
        {
            "stage_index": 0,
            "label": "prune round 4 of 4",
            "kept_fraction": 0.2578,
            "pruned": _accuracy(354),
            "retrained": None,
        }
    ],
    "verdict": {
        "ok": True,
        "summary": "61,706 to 15,910 non-zero parameters (3.9 times fewer), file -67%, MACs -73%, "
        "top-1 98.33% to 98.61% (+0.28%)",
        "warnings": [],
        "compression_ratio": 3.88,
        "file_ratio": 3.01,
        "theoretical_speedup": 3.69,
        "nonzero_theoretical_speedup": 3.69,
        "measured_speedup": {"1": 1.4, "32": 2.38},
        "accuracy_change": 0.0028,
        "constraints_met": True,
    },
    "provenance": {
        "recipe": RECIPE,
        "seed": 0,
        "model_sha256": SHA256,
        "dataset_sha256": SHA256,
        "result_sha256": SHA256,
        "versions": {"python": "3.12.3", "torch": "2.13.0", "secateur": "0.1.0"},
        "device": "cpu",
        "threads": 2,
        "deterministic": True,
    },
}
