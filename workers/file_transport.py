"""Celery's filesystem transport, made safe for several processes that start at once.

kombu's own (5.7) has two gaps that embedded mode would meet:

1. It writes a message under its final name; a consumer that lists the folder at that moment takes
   an empty or half-written file, fails to parse it, and the worker stops. Here a message is
   written aside and renamed.
2. A consumer moves the message to the system's temporary folder, a copy where that is another
   file system. Here it is renamed within the message folder: exactly one consumer succeeds.

A message taken by a worker that then dies is lost; the reconciler pokes again.
"""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, filesystem

SCHEME = "embedded"


class Channel(filesystem.Channel):
    """Messages as files `<time>_<uuid>.<queue>.msg`, appearing and vanishing in one step."""

    # kombu's classes disagree among themselves on the second argument's name
    def _put(self, queue: str, payload: Any, **_options: Any) -> None:  # type: ignore[override]
        # wall-clock nanoseconds of fixed width: names sort by age, also across a reboot
        name = f"{time.time_ns():020d}_{uuid.uuid4().hex}.{queue}.msg"
        folder = Path(self.data_folder_out)
        aside = folder / f".{name}"
        aside.write_text(json.dumps(payload), encoding="utf-8")
        aside.rename(folder / name)

    def _get(self, queue: str, timeout: Any = None) -> Any:  # noqa: ARG002 (kombu's signature)
        folder = Path(self.data_folder_in)
        for name in sorted(path.name for path in folder.iterdir()):
            if name.startswith(".") or name.partition(".")[2] != f"{queue}.msg":
                continue
            taken = folder / f".taken_{uuid.uuid4().hex}"
            try:
                (folder / name).rename(taken)
            except FileNotFoundError:
                continue  # another consumer was faster
            payload = taken.read_text(encoding="utf-8")
            taken.unlink()
            return json.loads(payload)
        raise Empty


class Transport(filesystem.Transport):
    """The transport behind `embedded://`."""

    Channel = Channel

    def establish_connection(self) -> Any:
        """Make the folders, as a broker would be there."""
        client: Any = self.client
        options = client.transport_options
        for name in ("data_folder_in", "data_folder_out", "control_folder"):
            Path(options[name]).mkdir(parents=True, exist_ok=True)
        establish: Any = super().establish_connection
        return establish()


def register() -> None:
    """Make `embedded://` known to kombu."""
    TRANSPORT_ALIASES[SCHEME] = f"{__name__}:Transport"
