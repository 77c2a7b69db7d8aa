"""Database records. The database is the truth; broker messages only poke.

Times are UTC. Every object belongs to a tenant. JSON columns hold the client types of
`secateur.resources` and `secateur.recipe` as plain data.
"""

from persistence.records.base import Record, UtcDateTime, utc_now
from persistence.records.jobs import (
    LIVE,
    SEARCH,
    ArtifactRecord,
    EventRecord,
    JobRecord,
    LogRecord,
    MetricRecord,
    OutboxRecord,
    QueueShareRecord,
    StageRecord,
    WorkerRecord,
)
from persistence.records.owners import SCOPES, ApiKeyRecord, AuditRecord, TenantRecord
from persistence.records.requests import IdempotencyRecord
from persistence.records.uploads import (
    DatasetRecord,
    ModelRecord,
    UploadPartRecord,
    UploadRecord,
)
from persistence.records.webhooks import DeliveryAttemptRecord, DeliveryRecord, WebhookRecord

__all__ = [
    "LIVE",
    "SCOPES",
    "SEARCH",
    "ApiKeyRecord",
    "ArtifactRecord",
    "AuditRecord",
    "DatasetRecord",
    "DeliveryAttemptRecord",
    "DeliveryRecord",
    "EventRecord",
    "IdempotencyRecord",
    "JobRecord",
    "LogRecord",
    "MetricRecord",
    "ModelRecord",
    "OutboxRecord",
    "QueueShareRecord",
    "Record",
    "StageRecord",
    "TenantRecord",
    "UploadPartRecord",
    "UploadRecord",
    "UtcDateTime",
    "WebhookRecord",
    "WorkerRecord",
    "utc_now",
]
