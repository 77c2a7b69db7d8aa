"""Print what the API image installs: the server's dependencies without torch and plots, and the
client of object stores.

The API never loads a model, so its image stays small; a test holds the names left out here
against what `service` imports.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

LEFT_OUT = {"secateur", "torch", "matplotlib", "scipy", "celery", "kombu", "jinja2"}


def requirements(project: Path) -> list[str]:
    """The requirement lines of the project file that the API needs."""
    with project.open("rb") as opened:
        described = tomllib.load(opened)["project"]
    listed: list[str] = described["dependencies"] + described["optional-dependencies"]["s3"]
    return [line for line in listed if re.split(r"[^A-Za-z0-9_.-]", line)[0] not in LEFT_OUT]


if __name__ == "__main__":
    sys.stdout.write("\n".join(requirements(Path(sys.argv[1]))) + "\n")
