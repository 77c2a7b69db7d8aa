"""What the SDK raises. Every error says what to do in `hint`."""

from __future__ import annotations

from secateur.resources import Problem


class SecateurError(Exception):
    """Base of everything the SDK raises on purpose."""

    def __init__(self, title: str, *, hint: str = "") -> None:
        super().__init__(title)
        self.title = title
        self.hint = hint


class ServerNotFound(SecateurError):
    """No URL was given and no embedded server runs on this machine."""


class ServerUnreachable(SecateurError):
    """The server does not answer, after all retries."""


class UnexpectedAnswer(SecateurError):
    """Something answered that is not this API, or not a version the SDK understands."""


class DownloadCorrupt(SecateurError):
    """Downloaded bytes do not have the promised SHA-256 or length; nothing was written."""


class ApiError(SecateurError):
    """The API refused a request; `problem` is its problem+json body."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.title, hint=problem.hint)
        self.problem = problem

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.problem.status

    def __str__(self) -> str:
        lines = [f"{self.problem.title} ({self.problem.status})"]
        faults = [f"{fault.field}: {fault.message}" for fault in self.problem.errors]
        if not faults and self.problem.detail:
            lines.append(self.problem.detail)
        lines += faults
        if self.hint:
            lines.append(self.hint)
        return "\n".join(lines)
