"""The Celery application. A message carries a job id and nothing else; the database is the truth.

Messages are acknowledged when a job starts, not when it ends: the lease in the database is what
notices a dead worker, and a broker that redelivered a long job would only add a second poke. So
nothing depends on the broker's memory, and the same settings serve Redis, RabbitMQ and files.
"""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu.entity import Exchange, Queue

from persistence.settings import Settings, settings
from workers import file_transport

RUN_JOB = "secateur.run_job"
QUEUES = {"cpu": "secateur-cpu", "gpu": "secateur-gpu"}
"""Broker queue of each of `jobs.queue`."""

_WEEK_SECONDS = 7 * 24 * 3600
_CONNECT_SECONDS = 5


def create_app(config: Settings) -> Celery:
    """A Celery application on the broker of the settings."""
    url, transport_options, queue_arguments = _broker(config)
    app = Celery("secateur", broker=url, include=["workers.tasks"], set_as_current=False)
    app.conf.update(
        broker_transport_options=transport_options,
        broker_connection_timeout=_CONNECT_SECONDS,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # the default exchange: no bindings to declare, and so none to race for (the filesystem
        # transport keeps them in a file that two starting processes would both write)
        task_queues=[_queue(name, queue_arguments) for name in QUEUES.values()],
        task_default_queue=QUEUES["cpu"],
        task_create_missing_queues=False,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        # a poke that waits inside a busy worker is of no use to an idle one
        worker_disable_prefetch=url.startswith("redis"),
        # cancels travel through the database, and the filesystem transport has no broadcast
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
    )
    return app


def _queue(name: str, arguments: dict[str, Any] | None) -> Any:
    make_queue: Any = Queue
    make_exchange: Any = Exchange
    return make_queue(name, make_exchange(""), routing_key=name, queue_arguments=arguments)


def _broker(config: Settings) -> tuple[str, dict[str, Any], dict[str, Any] | None]:
    if config.broker_url is None:
        folder = (config.data_dir / "broker").resolve()
        file_transport.register()
        options: dict[str, Any] = {
            # one folder: what is written out is what is read in
            "data_folder_in": str(folder / "messages"),
            "data_folder_out": str(folder / "messages"),
            "control_folder": str(folder / "control"),
            "polling_interval": 0.1,
        }
        return f"{file_transport.SCHEME}://", options, None
    url = config.broker_url.get_secret_value()
    if url.startswith("redis"):
        options = {
            # only pokes that no worker started on are ever redelivered
            "visibility_timeout": max(_WEEK_SECONDS, 2 * config.max_job_seconds),
            "socket_connect_timeout": _CONNECT_SECONDS,
            "socket_keepalive": True,
        }
        return url, options, None
    # a busy worker holds one poke unacknowledged for as long as its job runs
    patience = 1000 * max(_WEEK_SECONDS, 2 * config.max_job_seconds)
    return url, {"confirm_publish": True}, {"x-consumer-timeout": patience}


app = create_app(settings())
