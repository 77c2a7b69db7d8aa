"""The campaigns of `make faults`."""

from __future__ import annotations

from tests.faults import injectors as faults
from tests.faults.campaign import Campaign

# 100 in all: some with each broker
KILLS = [
    (faults.kill_runner, 8),
    (faults.kill_worker, 16),
    (faults.kill_part("api"), 10),
    (faults.kill_part("dispatcher"), 8),
    (faults.kill_part("reconciler"), 8),
]
CLOCK = {
    "LD_PRELOAD": "libfaketimeMT.so.1",
    "DONT_FAKE_MONOTONIC": "1",
    "FAKETIME_NO_CACHE": "1",
    "FAKETIME_TIMESTAMP_FILE": "{folder}/clock",
}
CAMPAIGNS = [
    Campaign("killed, Redis", "redis", KILLS),
    Campaign("killed, RabbitMQ", "rabbitmq", KILLS),
    Campaign(
        "broker, Redis",
        "redis",
        [(faults.restart_broker, 6), (faults.broker_away, 3), (faults.empty_broker, 6)],
        pause=(1, 4),
    ),
    Campaign(
        "broker, RabbitMQ",
        "rabbitmq",
        [(faults.restart_broker, 3), (faults.broker_away, 2), (faults.empty_broker, 6)],
        pause=(1, 4),
    ),
    Campaign("database", "redis", [(faults.restart_database, 12)], pause=(2, 6)),
    Campaign("paused workers", "redis", [(faults.pause_worker, 6)], pause=(1, 3)),
    Campaign("messages", "rabbitmq", [(faults.flood, 10)], pause=(1, 3)),
    Campaign("clocks", "redis", [(faults.jump_clock, 12)], pause=(1, 3), extra=CLOCK),
    Campaign("full disk", "redis", [(faults.fill_disk, 12)], pause=(0.5, 3), store="disk"),
    Campaign("object store", "redis", [(faults.fail_s3, 40)], pause=(0.2, 1), store="s3"),
]
SHORT = Campaign(
    "short",
    "redis",
    [
        (faults.kill_runner, 1),
        (faults.kill_worker, 1),
        (faults.kill_part("api"), 1),
        (faults.kill_part("dispatcher"), 1),
        (faults.kill_part("reconciler"), 1),
        (faults.restart_database, 1),
        (faults.restart_broker, 1),
        (faults.empty_broker, 1),
    ],
    pause=(0.1, 0.4),
    users=1,
    recipes=("prune and train",),
)
"""For `make test`."""
