"""Headers that every answer carries, so that a browser does with it nothing but show it."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders

from persistence.settings import Settings

_NOTHING = "default-src 'none'; frame-ancestors 'none'"
_PAGE = (
    "default-src 'none'; connect-src 'self'; worker-src blob:; frame-ancestors 'none'; "
    "script-src 'unsafe-inline' https://cdn.jsdelivr.net; "
    "style-src 'unsafe-inline' https://cdn.jsdelivr.net https://fonts.googleapis.com; "
    "font-src https://fonts.gstatic.com; "
    "img-src 'self' data: https://fastapi.tiangolo.com https://cdn.redoc.ly"
)
_PAGES = frozenset({"/docs", "/redoc"})
"""The pages that show the API description load their script from where the framework has it."""


class ResponseHeaders:
    """The headers of one server.

    Args:
        settings: whether browsers are told to use TLS only.
    """

    def __init__(self, settings: Settings) -> None:
        self._always = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
        if settings.hsts_seconds:
            self._always["Strict-Transport-Security"] = f"max-age={settings.hsts_seconds}"

    def add(self, headers: MutableHeaders, path: str) -> None:
        """Complete the headers of an answer; what the endpoint said stays."""
        for name, value in self._always.items():
            headers.setdefault(name, value)
        headers.setdefault("Content-Security-Policy", _PAGE if path in _PAGES else _NOTHING)
        # what a key opens is nobody else's: no cache keeps it unless the endpoint says how
        headers.setdefault("Cache-Control", "no-store")
