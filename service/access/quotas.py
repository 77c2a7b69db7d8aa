"""Quotas at the door: what would be too much is not made."""

from __future__ import annotations

from sqlalchemy.orm import Session

from persistence import quotas
from persistence.settings import Settings
from service.problems import ProblemError

_MAKE_ROOM = {
    quotas.STORED_BYTES: "Delete models, datasets or uploads that are no longer needed",
    quotas.MODELS: "Delete models that are no longer needed",
    quotas.DATASETS: "Delete datasets that are no longer needed",
    quotas.LIVE_JOBS: "Wait until jobs have ended, or cancel some",
    quotas.API_KEYS: "Revoke keys that are no longer used",
    quotas.WEBHOOKS: "Delete webhooks that are no longer used",
}


class QuotaExceeded(ProblemError):
    """The tenant has as much of it as it may."""

    status = 403
    type = "quota-exceeded"
    title = "The quota of this tenant is used up"

    def __init__(self, name: str, limit: int, used: int, more: int) -> None:
        super().__init__(
            f"The quota `{name}` is {limit}; {used} are used, and this request asks for {more} "
            "more.",
            hint=f"{_MAKE_ROOM[name]}, or ask the operator for a larger quota. `GET /v1/limits` "
            "shows what is used.",
        )


def claim(session: Session, settings: Settings, tenant_id: str, name: str, more: int = 1) -> None:
    """Let the transaction make `more` of it, or refuse; call it before other rows are locked.

    Raises:
        QuotaExceeded: it would be too much.
    """
    limit = quotas.allowed(session, tenant_id, settings)[name]
    if limit is None:
        return
    quotas.hold(session, tenant_id)
    used = quotas.used(session, tenant_id, name)
    if used + more > limit:
        raise QuotaExceeded(name, limit, used, more)
