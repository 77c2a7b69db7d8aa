"""How the problems of an operation are written into the API description."""

from __future__ import annotations

from typing import Any

from service.problems.problem import MEDIA_TYPE

_TITLES = {
    400: ("bad-request", "The request cannot be read"),
    401: ("unauthorized", "A valid API key is required"),
    403: ("insufficient-scope", "The API key may not do this"),
    404: ("model-not-found", "Not found"),
    406: ("not-acceptable", "Not available in the asked format"),
    409: ("model-in-use", "The model is in use"),
    413: ("upload-too-large", "The upload is too large"),
    415: ("media-type-unsupported", "The body is in a form that is not read here"),
    416: ("range-not-satisfiable", "The range lies outside the content"),
    422: ("recipe-invalid", "The recipe is invalid"),
    429: ("too-many-requests", "Too many requests"),
    500: ("internal-error", "Internal error"),
    503: ("not-ready", "The service is not ready"),
}

_EXAMPLES: dict[int, dict[str, Any]] = {
    422: {
        "detail": "Invalid: `recipe.stages.0.allocation.amount`.",
        "hint": "`errors` names each field and what would be valid.",
        "errors": [
            {
                "field": "recipe.stages.0.allocation.amount",
                "message": "Input should be less than 1.",
            }
        ],
    },
    404: {
        "detail": "There is no model `mdl_01kaxq0f3m8s6e5v2t7c9d1r4w`.",
        "hint": "Check the id; `GET /v1/models` lists what this API key can see.",
    },
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an operation that may answer with these problems. One that wants a key
    (401) may find that it lacks the scope (403) or is used too often (429)."""
    implied = {403, 429, 500} if 401 in statuses else {500}
    return {status: _response(status) for status in sorted({*statuses, *implied})}


def _response(status: int) -> dict[str, Any]:
    kind, title = _TITLES[status]
    example = {
        "type": f"/problems/{kind}",
        "title": title,
        "status": status,
        "detail": "",
        "hint": "",
        "instance": "/v1/...",
        "errors": [],
        **_EXAMPLES.get(status, {}),
    }
    return {
        "description": title,
        "content": {
            MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}
        },
    }
