"""Give a tenant quotas of its own: `python deploy/set_quotas.py --tenant NAME live_jobs=20
stored_bytes=default`.

Prints the quotas that hold now. `default` follows the settings (`SECATEUR_QUOTA_...`) again.
"""

from __future__ import annotations

import argparse
import sys

from sqlalchemy import select

from persistence import quotas
from persistence.database import database
from persistence.records import TenantRecord
from persistence.settings import settings


def setting(text: str) -> tuple[str, int | None]:
    """`name=number` or `name=default`."""
    name, _, value = text.partition("=")
    if name not in quotas.USED:
        raise argparse.ArgumentTypeError(f"no quota `{name}`; there are {', '.join(quotas.USED)}")
    if value == "default":
        return name, None
    if not (value.isascii() and value.isdigit()):
        raise argparse.ArgumentTypeError(f"`{text}`: write {name}=NUMBER or {name}=default")
    return name, int(value)


def main() -> None:
    """Change what is named and print all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tenant", required=True, help="its name")
    parser.add_argument("quotas", nargs="*", type=setting, metavar="name=number")
    arguments = parser.parse_args()
    with database().session() as session:
        tenant = session.scalar(select(TenantRecord).where(TenantRecord.name == arguments.tenant))
        if tenant is None:
            parser.exit(1, f"there is no tenant {arguments.tenant!r}\n")
        quotas.set_own(session, tenant.id, dict(arguments.quotas))
        session.flush()
        for name, limit in quotas.allowed(session, tenant.id, settings()).items():
            used = quotas.used(session, tenant.id, name)
            sys.stdout.write(f"{name}: {used} of {'no limit' if limit is None else limit}\n")


if __name__ == "__main__":
    main()
