"""Logs as JSON lines on standard error, the web server's own lines included.

No header, body or query string is ever logged: that is where secrets travel. What looks like one
all the same, in a path or the message of an error, is blotted out.
"""

from __future__ import annotations

import logging
import re
import sys

import structlog
from structlog.typing import Processor

_SHARED: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
]


_KEYS = re.compile(r"\b(sk|whsec)_[0-9A-Za-z_+/=-]{16,}")
_PASSWORDS = re.compile(r"(://[^\s/:@\"']*:)[^\s@\"'/]+@")


def blot(line: str) -> str:
    """The line without what looks like an API key, a signing secret or the password of a URL."""
    return _PASSWORDS.sub(r"\1***@", _KEYS.sub(r"\1_***", line))


class _BlottedLines(structlog.stdlib.ProcessorFormatter):
    """The finished line, tracebacks included, is what gets blotted."""

    def format(self, record: logging.LogRecord) -> str:
        return blot(super().format(record))


def configure(level: int = logging.INFO) -> None:
    """Send all logging of this process through structlog. Calling it again changes nothing."""
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.set_name("secateur")
    handler.setFormatter(
        _BlottedLines(
            foreign_pre_chain=_SHARED,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [one for one in root.handlers if one.get_name() != "secateur"] + [handler]
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    # this application writes its own line per request, without query strings
    logging.getLogger("uvicorn.access").disabled = True


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger of this name."""
    bound: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return bound
