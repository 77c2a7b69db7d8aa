"""Make an API key: `python deploy/create_key.py --tenant NAME [--name NAME] [--scope SCOPE ...]
[--days DAYS]`.

Prints the secret, once; the database keeps only its hash. The first key of a server is made this
way, further ones with `POST /v1/api-keys`.
"""

from __future__ import annotations

import argparse
import sys
from datetime import timedelta

from persistence import api_keys, tenants
from persistence.database import database
from persistence.records import SCOPES, utc_now


def main() -> None:
    """Make the tenant if it is not there, and a key for it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tenant", required=True, help="who owns what is made with the key")
    parser.add_argument("--name", default="first key", help="what the key is called in lists")
    parser.add_argument(
        "--scope",
        action="append",
        choices=SCOPES,
        help="what the key may do; may be given several times, everything when left out",
    )
    parser.add_argument("--days", type=float, help="how long it lives; for ever when left out")
    arguments = parser.parse_args()
    if arguments.days is not None and arguments.days <= 0:
        parser.error("--days must be positive")
    end = None if arguments.days is None else utc_now() + timedelta(days=arguments.days)
    with database().session() as session:
        tenant = tenants.get_or_create(session, arguments.tenant)
        _, secret = api_keys.create(
            session,
            tenant_id=tenant.id,
            name=arguments.name,
            scopes=arguments.scope or SCOPES,
            expires_at=end,
        )
    sys.stdout.write(f"{secret}\n")


if __name__ == "__main__":
    main()
