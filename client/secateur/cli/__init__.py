"""The `secateur` command."""

from secateur.cli.main import app

__all__ = ["app"]
