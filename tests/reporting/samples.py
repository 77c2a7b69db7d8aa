"""Reports to render: a small model with everything in it, and a big one with strange names."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from secateur.report import (
    Accuracy,
    Certificate,
    Contestant,
    CurvePoint,
    DistributionState,
    Frozen,
    Histogram,
    Latency,
    LayerHistogram,
    LayerReport,
    Masked,
    Measurement,
    Provenance,
    Report,
    StageReport,
    TournamentReport,
    Verdict,
    WeightDistribution,
)

HOSTILE = "<script>alert(1)</script>\"'&$x_1$ {{ 7*7 }}"
RECIPE: dict[str, Any] = {
    "version": 1,
    "stages": [
        {
            "stage": "prune",
            "granularity": "channel",
            "criterion": "l1_norm",
            "allocation": {"scope": "local", "amount": 0.5},
            "schedule": {"kind": "iterative", "rounds": 4, "finetune": {"epochs": 3}},
            "exclude": ["fc3"],
        },
        {"stage": "finetune", "epochs": 10, "optimizer": {"kind": "sgd", "lr": 0.02}},
    ],
    "constraints": {"max_accuracy_drop": 0.01},
    "seed": 0,
}


def _state(share: float, correct: int | None, speed: float | None) -> dict[str, Any]:
    return {
        "file_bytes": 15_000 + int(248_000 * share**2),
        "parameters": int(61_706 * share**2),
        "nonzero_parameters": int(61_706 * share**2),
        "macs": int(416_520 * share**2),
        "loss": None if correct is None else 3.4 - correct / 110,
        "accuracy": None
        if correct is None
        else Accuracy(correct=correct, total=360, top1=correct / 360),
        "latency_ms": []
        if speed is None
        else [
            Latency(
                batch_size=batch,
                p50=base * speed,
                p90=base * speed * 1.11,
                p99=base * speed * 1.42,
                runs=30,
            )
            for batch, base in ((1, 0.213), (32, 1.87))
        ],
    }


def _bell(width: float, total: int) -> Histogram:
    edges = np.linspace(-0.6, 0.6, 61)
    middles = (edges[:-1] + edges[1:]) / 2
    density = np.exp(-((middles / width) ** 2))
    return Histogram(
        edges=edges.tolist(), counts=(density / density.sum() * total).astype(int).tolist()
    )


def staged_report() -> Report:
    """Everything newer reports have: masked states, distributions of two layers, the curve."""
    base = small_report()
    masked = Masked(
        **_state(1, 346, None)
        | {"file_bytes": 503_486, "memory_bytes": 484_496, "evaluation_ms": 12.6},
        form="mask_beside_weight",
        elapsed_ms=35.9,
    )
    permanent = base.stages[0].model_copy(
        update={
            "state": "permanent",
            "masked": masked,
            "memory_bytes": 242_816,
            "evaluation_ms": 11.0,
        }
    )
    trained = base.stages[1].model_copy(update={"state": "finetuned"})
    points = [
        CurvePoint(
            stage_index=0,
            label=f"prune round {number} of 3",
            kept_fraction=kept,
            pruned=Accuracy(correct=pruned, total=360, top1=pruned / 360),
            retrained=None
            if retrained is None
            else Accuracy(correct=retrained, total=360, top1=retrained / 360),
        )
        for number, kept, pruned, retrained in (
            (1, 0.5, 340, 356),
            (2, 0.25, 310, 351),
            (3, 0.125, 250, None),
        )
    ]
    bell = [int(900 * math.exp(-((index - 15.5) ** 2) / 40)) for index in range(32)]
    states = [
        ("original", "original", bell, 0),
        (
            "pruned",
            "prune round 3 of 3",
            [0 if 12 < i < 19 else n for i, n in enumerate(bell)],
            5300,
        ),
        ("retrained", "finetune", [0 if 12 < i < 19 else n + 9 for i, n in enumerate(bell)], 5084),
    ]
    weights = WeightDistribution(
        edges=np.linspace(-0.4, 0.4, 33).tolist(),
        states=[
            DistributionState(
                state=state,
                label=label,
                total=LayerHistogram(name="", counts=[2 * n for n in counts], zeros=2 * zeros),
                layers=[
                    LayerHistogram(name=name, counts=counts, zeros=zeros)
                    for name in ("conv1.weight", f"fc.{HOSTILE}.weight")
                ],
            )
            for state, label, counts, zeros in states
        ],
        unlisted_layers=3,
    )
    return base.model_copy(
        update={
            "stages": [permanent, trained, *base.stages[2:]],
            "curve": points,
            "weights": weights,
        }
    )


def small_report(**changes: Any) -> Report:
    """LeNet-5 pruned in four rounds; `changes` replace whole fields."""
    stages = []
    for number in range(1, 5):
        share = 0.5 ** (number / 4)
        for kind, correct in (("prune", 352 - 6 * number), ("finetune", 357 - number // 2)):
            word = "prune" if kind == "prune" else "fine-tune after"
            stages.append(
                StageReport(
                    stage=kind,
                    label=f"{word} round {number} of 4",
                    stage_index=0,
                    round=number,
                    removed=38 if kind == "prune" else 0,
                    elapsed_ms=182.0 if kind == "prune" else 2_640.0,
                    **_state(share, correct, None),
                )
            )
    stages.append(
        StageReport(
            stage="finetune",
            label="finetune",
            stage_index=1,
            elapsed_ms=9_120.0,
            **_state(0.5, 356, None),
        )
    )
    fields: dict[str, Any] = {
        "before": Measurement(**_state(1, 357, 1)),
        "stages": stages,
        "after": Measurement(**_state(0.5, 356, 0.61)),
        "certificate": Certificate(
            passed=True,
            kind="exact",
            max_relative_error=2.2e-16,
            mixed_by=[],
            batch_sizes=[1, 2, 5],
            reloaded_in_fresh_process=True,
        ),
        "frozen": [
            Frozen(layer="fc3", op="output", reason="the model returns it", channels=10),
            Frozen(layer="conv1", op="input", reason="the model takes it", channels=1),
        ],
        "layers": [
            LayerReport(
                name=f"{name}.weight",
                shape_before=before,
                shape_after=after,
                nonzero_after=math.prod(after),
                removed_fraction=1 - math.prod(after) / math.prod(before),
            )
            for name, before, after in (
                ("conv1", [20, 1, 5, 5], [10, 1, 5, 5]),
                ("conv2", [50, 20, 5, 5], [25, 10, 5, 5]),
                ("fc1", [120, 200], [60, 100]),
                ("fc2", [84, 120], [42, 60]),
                ("fc3", [10, 84], [10, 42]),
            )
        ],
        "histogram_before": _bell(0.12, 61_000),
        "histogram_after": _bell(0.2, 15_400),
        "verdict": Verdict(
            ok=True,
            summary="75.0 % fewer MACs and a 3.4 times smaller file, top-1 down 0.28 points",
            warnings=[],
            compression_ratio=4.0,
            file_ratio=3.42,
            theoretical_speedup=4.0,
            measured_speedup={"1": 1.64, "32": 1.64},
            accuracy_change=-1 / 360,
            constraints_met=True,
        ),
        "provenance": Provenance(
            recipe=RECIPE,
            seed=0,
            model_sha256="3f1c" * 16,
            dataset_sha256="9a0e" * 16,
            result_sha256="c47d" * 16,
            versions={"secateur": "0.1.0", "torch": "2.13.0", "python": "3.11.2"},
            device="cpu",
            threads=2,
            deterministic=True,
        ),
    }
    return Report(**(fields | changes))


def big_report(layers: int = 400) -> Report:
    """A model of many layers with hostile names, slower than its original, without a dataset."""
    base = small_report()
    states = [
        StageReport(
            stage="prune",
            label=f"prune round {number} of 60 {HOSTILE}",
            stage_index=0,
            round=number,
            removed=120,
            elapsed_ms=61_000.0 * number,
            **_state(0.5 ** (number / 60), None, None),
        )
        for number in range(1, 61)
    ]
    return small_report(
        before=Measurement(**_state(1, None, 1)),
        after=Measurement(**_state(0.5, None, 1.2)),
        stages=states,
        layers=[
            LayerReport(
                name=f"encoder.layer.{index}.{HOSTILE}.weight",
                shape_before=[768, 768],
                shape_after=[384 + index % 300, 768],
                nonzero_after=(384 + index % 300) * 768,
                removed_fraction=1 - (384 + index % 300) / 768,
            )
            for index in range(layers)
        ],
        frozen=[
            Frozen(
                layer=f"encoder.layer.{index}.{HOSTILE}",
                op="aten::layer_norm" if index % 2 else HOSTILE,
                reason=f"no rule for this operator {HOSTILE}",
                channels=768,
            )
            for index in range(layers)
        ],
        certificate=Certificate(
            passed=True,
            kind="approximate",
            max_relative_error=0.0313,
            restricted_error=3.1e-16,
            mixed_by=[f"encoder.layer.{i}.norm (aten::layer_norm)" for i in range(24)],
            batch_sizes=[1, 3],
            reloaded_in_fresh_process=True,
            detail=HOSTILE,
        ),
        verdict=Verdict(
            ok=False,
            summary=f"Half the MACs, but slower than the original {HOSTILE}",
            warnings=[
                "At batch size 1 the compact model is slower than the original (0.83 times).",
                HOSTILE,
            ],
            compression_ratio=4.0,
            file_ratio=3.4,
            theoretical_speedup=4.0,
            measured_speedup={"1": 0.83, "32": 0.83},
            accuracy_change=None,
            constraints_met=False,
        ),
        provenance=base.provenance.model_copy(
            update={
                "dataset_sha256": None,
                "deterministic": False,
                "recipe": {**RECIPE, "stages": [{"stage": "prune", "exclude": [HOSTILE]}]},
            }
        ),
    )


def contested_report() -> Report:
    """A report whose criterion was decided by a tournament of three."""

    def one(name: str, before: int, after: int, loss: float, *, matched: bool = True) -> Contestant:
        return Contestant(
            criterion=name,
            amount=0.4671,
            removed=128,
            matched=matched,
            macs=208_000 if matched else 195_000,
            parameters=30_100,
            nonzero_parameters=30_100,
            loss_before=2 * loss,
            accuracy_before=Accuracy(correct=before, total=360, top1=before / 360),
            loss=loss,
            accuracy=Accuracy(correct=after, total=360, top1=after / 360),
            seconds=1.46,
        )

    held = TournamentReport(
        stage_index=0,
        matched_by="macs",
        before=416_520,
        target=208_260,
        tolerance=0.02,
        recovery_epochs=1,
        recovery_steps=None,
        contestants=[
            one("l1_norm", 300, 350, 0.1234, matched=False),
            one("taylor", 338, 355, 0.0912),
            Contestant(criterion="bn_scale", reason="no [BatchNorm] <b>"),
        ],
        winner="taylor",
    )
    return small_report(tournaments=[held])
