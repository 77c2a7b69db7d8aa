"""Why an embedded server does not start."""

from __future__ import annotations


class CannotStart(Exception):
    """Carries what to do about it.

    Args:
        reason: what is in the way.
        hint: what to do.
    """

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
