"""The job queue: the only code that changes `jobs.status`.

```
           claim_next              finish
 queued ───────────▶ running ─────────────▶ succeeded | failed
  ▲ │ │                │  │ request_cancel
  │ │ │ request_cancel │  └──────────▶ canceling ──finish/reconcile──▶ canceled
  │ │ └────────────────┼────────────────────────────────────────────────▲
  └─┼── release, reconcile (lease expired, attempts left)               │
    │                  ├── reconcile (no attempts left) ──▶ failed      │
    └──────────────────┴── finish, reconcile, claim_next (too late) ──▶ expired
```

Every function works in the caller's transaction. A claim hands out a fencing token (the attempt
number); whatever a worker writes afterwards carries it, and a write with a stale token changes
nothing and returns False. Which job is next is in `turns` and `shares`, how long it may wait and
run in `clocks`. Terminal states are written by `completion.settle` and nowhere else.
"""

from persistence.job_queue import shares, trials
from persistence.job_queue.claims import RenewResult, claim, release, renew
from persistence.job_queue.clocks import database_time
from persistence.job_queue.completion import add_artifact, finish
from persistence.job_queue.history import (
    append_event,
    append_log,
    append_metric,
    finish_stage,
    set_progress,
    start_stage,
)
from persistence.job_queue.outbox import Poke, any_unsent, mark_sent, unsent
from persistence.job_queue.recovery import Reconciled, charge_running, reconcile
from persistence.job_queue.retries import forget_checkpoints, retry
from persistence.job_queue.submission import enqueue, request_cancel
from persistence.job_queue.tokens import Claim, holds
from persistence.job_queue.turns import claim_next, poke_again, queue_of

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
    "charge_running",
    "claim",
    "claim_next",
    "database_time",
    "enqueue",
    "finish",
    "finish_stage",
    "forget_checkpoints",
    "holds",
    "mark_sent",
    "poke_again",
    "queue_of",
    "reconcile",
    "release",
    "renew",
    "request_cancel",
    "retry",
    "set_progress",
    "shares",
    "start_stage",
    "trials",
    "unsent",
]
