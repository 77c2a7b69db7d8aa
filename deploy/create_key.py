"""Make an API key: `python deploy/create_key.py --tenant NAME [--name NAME]`.

Prints the secret, once; the database keeps only its hash. The first key of a server is made this
way, further ones with `POST /v1/api-keys`.
"""

from __future__ import annotations

import argparse
import sys

from persistence import api_keys, tenants
from persistence.database import database


def main() -> None:
    """Make the tenant if it is not there, and a key for it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tenant", required=True, help="who owns what is made with the key")
    parser.add_argument("--name", default="first key", help="what the key is called in lists")
    arguments = parser.parse_args()
    with database().session() as session:
        tenant = tenants.get_or_create(session, arguments.tenant)
        _, secret = api_keys.create(session, tenant_id=tenant.id, name=arguments.name)
    sys.stdout.write(f"{secret}\n")


if __name__ == "__main__":
    main()
