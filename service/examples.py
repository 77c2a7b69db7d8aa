"""Example requests and responses of the API description."""

from __future__ import annotations

from typing import Any

_MODEL_ID = "mdl_06av9c2k3h7n8q4r5s6t7v8w9x"
_DATASET_ID = "dst_06av9c2p1d2f3g4h5j6k7m8n9p"
_JOB_ID = "job_06av9c3a7b8c9d0e1f2g3h4j5k"
_TIME = "2026-01-15T09:30:00Z"
SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

MODEL_UPLOADED: dict[str, Any] = {
    "id": _MODEL_ID,
    "name": "lenet5",
    "sha256": SHA256,
    "bytes": 263_168,
    "upload_sha256": "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752",
    "status": "uploaded",
    "error": None,
    "info": None,
    "created_at": _TIME,
}

MODEL: dict[str, Any] = {
    **MODEL_UPLOADED,
    "status": "ready",
    "info": {
        "arguments": [{"name": "x", "type": "Tensor", "optional": False}],
        "methods": ["forward"],
        "parameters": 61_706,
        "buffers": 0,
        "dtypes": ["float32"],
        "layers": ["conv1", "conv2", "fc1", "fc2", "fc3"],
        "torchscript_bytes": 263_168,
    },
}

DATASET: dict[str, Any] = {
    "id": _DATASET_ID,
    "name": "digits",
    "sha256": SHA256,
    "bytes": 474_752,
    "format": "safetensors",
    "tensors": [
        {"name": "train/inputs/0", "dtype": "float32", "shape": [1437, 1, 8, 8]},
        {"name": "train/targets/0", "dtype": "int64", "shape": [1437]},
        {"name": "validation/inputs/0", "dtype": "float32", "shape": [360, 1, 8, 8]},
        {"name": "validation/targets/0", "dtype": "int64", "shape": [360]},
    ],
    "splits": {"train": 1437, "validation": 360},
    "created_at": _TIME,
}

UPLOAD_CREATE: dict[str, Any] = {
    "kind": "model",
    "name": "resnet152.pt",
    "bytes": 241_534_976,
    "sha256": SHA256,
}

UPLOAD: dict[str, Any] = {
    "id": "upl_06av9c2t5v6w7x8y9z0a1b2c3d",
    **UPLOAD_CREATE,
    "status": "open",
    "received_bytes": 33_554_432,
    "received_parts": 2,
    "part_bytes": 16_777_216,
    "max_part_bytes": 1_073_741_824,
    "max_parts": 10_000,
    "resource_id": None,
    "error": None,
    "created_at": _TIME,
    "expires_at": "2026-01-22T09:30:00Z",
}

UPLOAD_PART: dict[str, Any] = {"number": 1, "sha256": SHA256, "bytes": 16_777_216}

UPLOAD_COMPLETE: dict[str, Any] = {"parts": [{"number": 1, "sha256": SHA256}]}

RECIPE: dict[str, Any] = {
    "version": 1,
    "stages": [
        {
            "stage": "prune",
            "granularity": "channel",
            "criterion": "l1_norm",
            "allocation": {"scope": "global", "amount": 0.5},
            "schedule": {"kind": "iterative", "rounds": 4, "finetune": {"epochs": 1}},
            "exclude": ["fc3"],
        },
        {"stage": "finetune", "epochs": 5, "optimizer": {"kind": "sgd", "lr": 0.01}},
    ],
    "constraints": {"max_accuracy_drop": 0.01},
}

JOB_CREATE: dict[str, Any] = {
    "type": "compress",
    "model_id": _MODEL_ID,
    "dataset_id": _DATASET_ID,
    "recipe": RECIPE,
    "name": "half the channels",
    "metadata": {"team": "vision"},
}

ARTIFACT: dict[str, Any] = {
    "id": "art_06av9c4x2y3z4a5b6c7d8e9f0g",
    "job_id": _JOB_ID,
    "kind": "model",
    "name": "compact.pt",
    "media_type": "application/octet-stream",
    "sha256": SHA256,
    "bytes": 87_552,
    "created_at": _TIME,
}

JOB_QUEUED: dict[str, Any] = {
    "id": _JOB_ID,
    "type": "compress",
    "status": "queued",
    "name": "half the channels",
    "model_id": _MODEL_ID,
    "dataset_id": _DATASET_ID,
    "initial_model_id": None,
    "loss_model_id": None,
    "metric_model_id": None,
    "recipe": RECIPE,
    "device": "auto",
    "queue": "cpu",
    "stage": None,
    "progress": None,
    "attempt": 0,
    "queue_position": 0,
    "error": None,
    "result": None,
    "metadata": {"team": "vision"},
    "artifacts": [],
    "created_at": _TIME,
    "started_at": None,
    "finished_at": None,
}

JOB: dict[str, Any] = {
    **JOB_QUEUED,
    "status": "running",
    "stage": "prune round 2 of 4",
    "progress": {"current": 12, "total": 45, "unit": "batch", "eta_seconds": 3.4},
    "attempt": 1,
    "queue_position": None,
    "started_at": _TIME,
}

EVENT: dict[str, Any] = {
    "seq": 3,
    "type": "stage_started",
    "data": {"index": 0, "name": "prune round 1 of 4"},
    "created_at": _TIME,
}

METRIC: dict[str, Any] = {
    "seq": 17,
    "name": "validation/accuracy",
    "value": 0.975,
    "step": 3,
    "stage": "prune round 1 of 4",
    "created_at": _TIME,
}

API_KEY: dict[str, Any] = {
    "id": "key_06av9c5q1w2e3r4t5y6u7p8a9s",
    "name": "ci",
    "prefix": "sk_06av9c5q1w2e3",
    "scopes": ["read", "write"],
    "created_at": _TIME,
    "expires_at": None,
    "revoked_at": None,
    "replaced_by_id": None,
    "secret": None,
}

AUDIT_ENTRY: dict[str, Any] = {
    "id": 4711,
    "key_id": "key_06av9c5q1w2e3r4t5y6u7p8a9s",
    "action": "delete_model",
    "target": "mdl_06av9c2f3g4h5j6k7m8n9p0q1r",
    "status": 204,
    "request_id": "9f86d081884c7d65",
    "address": "198.51.100.7",
    "created_at": _TIME,
}

WEBHOOK: dict[str, Any] = {
    "id": "whk_06av9c6h1j2k3m4n5p6q7r8s9t",
    "url": "https://ci.example.com/hooks/secateur",
    "description": "pipeline",
    "event_types": ["job.succeeded", "job.failed"],
    "enabled": True,
    "failing_since": None,
    "previous_secret_expires_at": None,
    "created_at": _TIME,
    "secret": None,
}

DELIVERY: dict[str, Any] = {
    "id": "msg_06av9c7a1b2c3d4e5f6g7h8j9k",
    "webhook_id": WEBHOOK["id"],
    "event_type": "job.succeeded",
    "status": "delivered",
    "payload": {
        "type": "job.succeeded",
        "timestamp": _TIME,
        "data": {"id": _JOB_ID, "status": "succeeded"},
    },
    "attempts": [
        {
            "number": 1,
            "status_code": 204,
            "error": "",
            "response": "",
            "elapsed_ms": 38,
            "created_at": _TIME,
        }
    ],
    "next_attempt_at": None,
    "created_at": _TIME,
    "delivered_at": _TIME,
}

METHOD: dict[str, Any] = {
    "name": "l1_norm",
    "kind": "criterion",
    "summary": "Sum of the absolute weights of a filter.",
    "formula": "sum(|w|)",
    "source": "Li et al. 2017",
    "data": "none",
    "cost": "one pass over the weights",
    "schema": {},
}


LIMITS: dict[str, Any] = {
    "max_model_bytes": 4 * 2**30,
    "max_dataset_bytes": 16 * 2**30,
    "max_archive_entries": 100_000,
    "max_archive_ratio": 200.0,
    "max_unpacked_bytes": 8 * 2**30,
    "max_job_seconds": 86_400,
    "max_attempts": 3,
    "max_wait_seconds": 60,
    "page_size_default": 50,
    "page_size_max": 200,
    "quotas": {
        "stored_bytes": {"limit": 10**12, "used": 738_304},
        "models": {"limit": None, "used": 1},
        "datasets": {"limit": None, "used": 1},
        "live_jobs": {"limit": 100, "used": 1},
        "api_keys": {"limit": None, "used": 2},
        "webhooks": {"limit": 10, "used": 0},
    },
}

HEALTH: dict[str, Any] = {"status": "ok"}
READINESS: dict[str, Any] = HEALTH | {
    "workers": [{"queues": ["cpu"], "level": "full", "contained": True}]
}

NULL = "null, put back by service.openapi"


def written(example: Any) -> Any:
    """The example as the framework must be given it: it drops every null of a description, those
    of examples included, so they travel as a word."""
    if isinstance(example, dict):
        return {key: written(value) for key, value in example.items()}
    if isinstance(example, list):
        return [written(value) for value in example]
    return NULL if example is None else example


def with_nulls(node: Any) -> Any:
    """The description with its examples' nulls."""
    if isinstance(node, dict):
        return {key: with_nulls(value) for key, value in node.items()}
    if isinstance(node, list):
        return [with_nulls(value) for value in node]
    return None if node == NULL else node


def body(example: Any, description: str = "OK") -> dict[str, Any]:
    """A JSON response with an example."""
    return {
        "description": description,
        "content": {"application/json": {"example": written(example)}},
    }


def page(example: Any) -> dict[str, Any]:
    """A page of one."""
    return body({"data": [example], "next_cursor": None, "has_more": False}, "One page.")


def created(description: str, example: Any) -> dict[str, Any]:
    """A response that carries a `Location`."""
    return {
        **body(example, description),
        "headers": {"Location": {"description": "Where it lives.", "schema": {"type": "string"}}},
    }
