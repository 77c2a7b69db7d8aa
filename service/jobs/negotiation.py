"""Choosing a format by the `Accept` header (RFC 9110, 12.5.1)."""

from __future__ import annotations

from collections.abc import Sequence


def best_type(accept: str, offered: Sequence[str]) -> str | None:
    """The offered media type the client likes best, the earlier one among equals; None when it
    accepts none of them. No header means anything goes."""
    ranges = _parse(accept or "*/*")
    scored = [(_quality(ranges, media_type), media_type) for media_type in offered]
    quality = max(score for score, _ in scored)
    if quality <= 0:
        return None
    return next(media_type for score, media_type in scored if score == quality)


def _parse(accept: str) -> list[tuple[str, float]]:
    ranges = []
    for part in accept.split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip().lower() == "q":
                try:
                    quality = float(value)
                except ValueError:
                    quality = 0.0
        ranges.append((name.lower(), quality))
    return ranges


def _quality(ranges: list[tuple[str, float]], media_type: str) -> float:
    """The most specific matching range decides."""
    family = media_type.split("/", maxsplit=1)[0] + "/*"
    for pattern in (media_type, family, "*/*"):
        for name, quality in ranges:
            if name == pattern:
                return quality
    return 0.0
