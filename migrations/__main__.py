"""`python -m migrations`: bring the database of the settings to the newest revision."""

from __future__ import annotations

from migrations import upgrade
from persistence.settings import settings

upgrade(settings().resolved_database_url)
