"""The database schema, step by step.

`upgrade` and `downgrade` are what the servers and tests call; at a terminal
`alembic -c migrations/alembic.ini upgrade head` does the same on the database of the settings.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config

_FOLDER = Path(__file__).parent


def config(url: str) -> Config:
    """Alembic's configuration for one database."""
    configuration = Config(_FOLDER / "alembic.ini")
    # not through set_main_option: a password may hold `%`, which the ini format expands
    configuration.attributes["url"] = url
    return configuration


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the database at `url` to a revision, by default the newest."""
    command.upgrade(config(url), revision)


def downgrade(url: str, revision: str = "base") -> None:
    """Take the database at `url` back to a revision, by default to nothing."""
    command.downgrade(config(url), revision)
