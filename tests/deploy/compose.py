"""docker-compose.yml as processes: the same commands and environments, without containers.

What a container platform would provide is put in: host names of services become the addresses of
the tests' servers, volumes become temporary folders, `0.0.0.0:8000` a free port on the loopback.
Everything else is run as it is written.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

ROOT = Path(__file__).resolve().parents[2]
SERVERS = {"postgres", "redis", "object-store"}
"""Services whose program is not ours."""

_VARIABLE = re.compile(r"\$\{(\w+)(?:(:?[-?])([^}]*))?\}")


class MissingVariable(Exception):
    """A variable that must be set is not."""


def interpolate(value: Any, variables: Mapping[str, str]) -> Any:
    """`${NAME}`, `${NAME:-default}` and `${NAME:?message}`, as Docker Compose reads them."""

    def replace(match: re.Match[str]) -> str:
        name, operator, rest = match.groups()
        if variables.get(name):
            return variables[name]
        if operator in {":?", "?"}:
            raise MissingVariable(f"{name}: {rest}")
        return rest if operator in {":-", "-"} else ""

    match value:
        case str():
            return _VARIABLE.sub(replace, value)
        case list():
            return [interpolate(item, variables) for item in value]
        case dict():
            return {key: interpolate(item, variables) for key, item in value.items()}
        case _:
            return value


def load() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


@dataclass
class Deployment:
    """Runs the services of the compose file.

    Attributes:
        folder: stands for the containers' file systems and the named volumes.
        servers: URL of each server, by its host name in the compose file.
        port: where the API listens.
        variables: what `.env` would hold.
    """

    folder: Path
    servers: dict[str, str]
    port: int
    variables: dict[str, str]

    def __post_init__(self) -> None:
        self.services: dict[str, Any] = interpolate(load()["services"], self.variables)

    def command(self, service: str) -> list[str]:
        return self._adapt(self.services[service]["command"])

    def command_of(self, *arguments: str) -> list[str]:
        """A command for `run`, as one would type it after the service's name."""
        return self._adapt(["python", *arguments])

    def health_check(self, service: str) -> list[str]:
        kind, *command = self.services[service]["healthcheck"]["test"]
        assert kind == "CMD"
        return self._adapt(command)

    def environment(self, service: str) -> dict[str, str]:
        """What the container would see, and no more than it."""
        inside = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "OMP_NUM_THREADS": "1"}
        for name, value in self.services[service].get("environment", {}).items():
            inside[name] = self._address(service, value)
        return inside

    def run(self, service: str, command: list[str], **options: Any) -> Any:
        """Run a command in the service's surroundings, as `docker compose run` does."""
        return subprocess.run(
            command,
            env=self.environment(service),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            **options,
        )

    @contextmanager
    def start(self, service: str) -> Iterator[Path]:
        """Run the service until the block ends; yields its log."""
        log = self.folder / f"{service}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                self.command(service),
                env=self.environment(service),
                cwd=ROOT,
                stdout=output,
                stderr=output,
            )
        try:
            yield log
            assert process.poll() is None, f"{service} ended:\n{log.read_text()}"
        finally:
            process.terminate()
            try:
                process.wait(timeout=40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise

    def _adapt(self, command: list[str]) -> list[str]:
        program, *arguments = command
        assert program == "python", f"{program} is not a program of ours"
        return [
            sys.executable,
            *(
                argument.replace("0.0.0.0", "127.0.0.1")  # noqa: S104 (replaced, not bound)
                .replace("127.0.0.1:8000", f"127.0.0.1:{self.port}")
                .replace("8000", str(self.port))
                for argument in arguments
            ),
        ]

    def _address(self, service: str, value: str) -> str:
        if "://" in value:
            return self.servers[urlsplit(value).hostname or ""]
        if value.startswith("/"):
            return str(self._place(service, value))
        return value

    def _place(self, service: str, path: str) -> Path:
        """A path inside a container: on a named volume when one is mounted there."""
        for mount in self.services[service].get("volumes", []):
            volume, target = mount.split(":")[:2]
            if path.startswith(target):
                return self.folder / "volumes" / volume / path[len(target) :].lstrip("/")
        return self.folder / "containers" / service / path.lstrip("/")
