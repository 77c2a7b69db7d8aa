"""The job queue: the only code that changes `jobs.status`.

```
            claim                finish
 queued ───────────▶ running ─────────────▶ succeeded | failed
   ▲  │                │  │ request_cancel
   │  │ request_cancel │  └──────────▶ canceling ──finish/reconcile──▶ canceled
   │  └────────────────┼────────────────────────────────────────────────▲
   └── release, reconcile (lease expired, attempts left)                │
                       └── reconcile (no attempts left) ──▶ failed      │
```

Every function works in the caller's transaction. A claim hands out a fencing token (the attempt
number); whatever a worker writes afterwards carries it, and a write with a stale token changes
nothing and returns False.
"""

from persistence.job_queue import trials
from persistence.job_queue.claims import (
    Claim,
    RenewResult,
    claim,
    database_time,
    holds,
    release,
    renew,
)
from persistence.job_queue.completion import add_artifact, finish
from persistence.job_queue.history import (
    append_event,
    append_log,
    append_metric,
    finish_stage,
    set_progress,
    start_stage,
)
from persistence.job_queue.outbox import Poke, any_unsent, mark_sent, poke_again, unsent
from persistence.job_queue.recovery import Reconciled, reconcile
from persistence.job_queue.submission import enqueue, request_cancel

__all__ = [
    "Claim",
    "Poke",
    "Reconciled",
    "RenewResult",
    "add_artifact",
    "any_unsent",
    "append_event",
    "append_log",
    "append_metric",
    "claim",
    "database_time",
    "enqueue",
    "finish",
    "finish_stage",
    "holds",
    "mark_sent",
    "poke_again",
    "reconcile",
    "release",
    "renew",
    "request_cancel",
    "set_progress",
    "start_stage",
    "trials",
    "unsent",
]
