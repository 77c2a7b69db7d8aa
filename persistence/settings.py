"""Settings of every process, read from the environment (`SECATEUR_...`).

Embedded mode sets nothing but `SECATEUR_DATA_DIR`; server mode sets the database and broker URLs.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from persistence.artifact_url import bucket_and_prefix, without_credentials
from persistence.webhooks.addresses import networks


class Settings(BaseSettings):
    """All settings, with the embedded mode's defaults."""

    model_config = SettingsConfigDict(
        env_prefix="SECATEUR_",
        frozen=True,
        hide_input_in_errors=True,  # a URL may hold what belongs in no log
    )

    data_dir: Path = Path(".secateur")
    """Folder of the SQLite file, the artifacts, the filesystem broker and the scratch space."""
    database_url: SecretStr | None = None
    """SQLAlchemy URL; SQLite under the data folder when left out."""
    broker_url: SecretStr | None = None
    """Celery broker URL (redis://, amqp://); the filesystem transport when left out."""
    artifact_dir: Path | None = None
    """Folder of the artifact store, shared by API and workers; `data_dir/artifacts` by default."""
    artifact_url: str | None = None
    """`s3://bucket/prefix`: artifacts in an object store instead of a folder. Credentials come
    from where AWS tools look for them (environment, files, the machine's role), never from here."""
    artifact_s3_endpoint: str | None = None
    """URL of an object store that is not Amazon's."""
    artifact_s3_region: str | None = None
    artifact_s3_path_style: bool = False
    """Whether the bucket is in the path of the URL, not in its host name."""
    artifact_s3_timeout_seconds: float = Field(default=10.0, gt=0)
    """How long the object store may be silent; a piece of a file may take six times that."""
    artifact_cache_dir: Path | None = None
    """With an object store: folder of local copies; `data_dir/artifact-cache` by default."""
    artifact_cache_bytes: int = Field(default=32 * 2**30, ge=0)
    """Most that the local copies take together, but for those used in the last ten minutes."""
    artifact_redirects: bool = False
    """Whether a client that asks for it downloads from the object store itself."""
    artifact_redirect_endpoint: str | None = None
    """URL of the object store as clients reach it, where that is another."""
    artifact_redirect_seconds: int = Field(default=300, ge=1, le=3600)
    """How long such an address is good for."""
    scratch_dir: Path | None = None
    """Folder of running jobs, local to a worker; `data_dir/scratch` by default."""

    default_queue: Literal["auto", "cpu", "gpu"] = "auto"
    """Queue of jobs with `device: auto`; `auto` means cpu unless a GPU worker is configured."""
    gpu_device: str | None = None
    """Set on a GPU worker: the one device it pins, as CUDA_VISIBLE_DEVICES would name it."""

    max_model_bytes: int = 4 * 2**30
    max_dataset_bytes: int = 16 * 2**30
    max_archive_entries: int = 100_000
    max_archive_ratio: float = 200.0
    max_unpacked_bytes: int = 8 * 2**30
    max_job_seconds: int = Field(default=24 * 3600, ge=1)
    max_attempts: int = Field(default=3, ge=1)
    max_wait_seconds: int = 60
    checkpoint_keep_seconds: int = Field(default=7 * 24 * 3600, ge=0)
    """How long the checkpoint of a job that ended without success is kept for a retry."""
    upload_part_bytes: int = Field(default=16 * 2**20, ge=1)
    """Size of the parts that clients are told to send files in."""
    max_part_bytes: int = Field(default=2**30, ge=1)
    """Largest part of an upload."""
    upload_seconds: int = Field(default=7 * 24 * 3600, ge=1)
    """An upload that is not completed so long after its last part is given up."""
    idempotency_seconds: int = Field(default=24 * 3600, ge=60)
    """How long the answer to a request with an `Idempotency-Key` is kept, at least."""
    key_cache_seconds: float = Field(default=2.0, ge=0, le=60)
    """How long an API process trusts a key it verified; a revoked key works that long elsewhere."""
    rate_limit_per_minute: int = Field(default=30_000, ge=0)
    """Requests of one API key; 0 sets no limit."""
    failed_keys_per_minute: int = Field(default=120, ge=0)
    """Requests from one address without a key that opens; 0 sets no limit."""
    rate_limit_url: SecretStr | None = None
    """Redis that counts requests; the broker's when that is Redis, else each process by itself."""
    hsts_seconds: int = Field(default=0, ge=0)
    """`Strict-Transport-Security` for this long; none when 0. For servers behind TLS only."""
    body_idle_seconds: float = Field(default=60.0, gt=0)
    """A request whose body brings nothing for this long is given up."""
    audit_log_days: float = Field(default=365.0, gt=0)
    """How long the log of changes is kept."""
    lease_seconds: float = Field(default=30.0, gt=0)
    heartbeat_seconds: float = Field(default=1.0, gt=0)
    """How often a worker renews its lease and looks for a cancel."""
    dispatch_seconds: float = Field(default=0.2, gt=0)
    """How often the dispatcher looks at the outbox."""
    reconcile_seconds: float = Field(default=5.0, gt=0)
    requeue_after_seconds: float = Field(default=60.0, gt=0)
    """A queued job whose poke was sent this long ago and was not claimed is poked again."""
    runner_threads: int | None = None
    """Torch threads of a runner; the machine's cores by default."""
    sandbox: Literal["required", "best_effort", "off"] = "required"
    """Whether a worker that cannot contain its runners refuses to start (`required`), runs jobs
    with limits only (`best_effort`), or is not to contain them at all (`off`)."""
    sandbox_read_paths: tuple[Path, ...] = ()
    """Files and folders that runners may read besides the installation, as a JSON list."""
    runner_memory_bytes: int | None = Field(default=None, ge=1)
    """Memory of all processes of a runner; four fifths of the machine's when left out."""
    runner_cpu_seconds: int | None = Field(default=None, ge=1)
    """CPU time of a process of a runner; the job's wall-clock limit times the cores by default."""
    runner_processes: int | None = Field(default=None, ge=1)
    """Processes and threads of a runner; 1024, or 32 for each core if that is more, by default."""
    runner_file_bytes: int = Field(default=16 * 2**30, ge=1)
    runner_scratch_bytes: int = Field(default=64 * 2**30, ge=1)
    """Disk space of a running job: inputs, results and what it leaves meanwhile."""
    quota_stored_bytes: int | None = Field(default=None, ge=0)
    """Most bytes of a tenant: models, datasets, results and parts of uploads."""
    quota_models: int | None = Field(default=None, ge=0)
    quota_datasets: int | None = Field(default=None, ge=0)
    quota_live_jobs: int | None = Field(default=None, ge=0)
    """Most jobs of a tenant that have not ended, inspections and trials included."""
    quota_api_keys: int | None = Field(default=None, ge=0)
    quota_webhooks: int | None = Field(default=None, ge=0)
    webhook_allowed_networks: str | None = None
    """Networks that webhooks may call though they are not public, separated by commas, such as
    `10.1.0.0/16,127.0.0.1/32`; only these may be called without TLS."""
    webhook_ca_file: Path | None = None
    """Certificates (PEM) of authorities that webhooks trust besides the public ones."""
    webhook_timeout_seconds: float = Field(default=15.0, gt=0)
    """For one attempt: name, connection, request and answer."""
    webhook_poll_seconds: float = Field(default=1.0, gt=0)
    webhook_log_days: float = Field(default=30.0, gt=0)
    """How long settled deliveries are shown."""
    export_formats: str | None = None
    """Formats of exports that the workers can make, separated by commas; all when left out."""

    @field_validator(
        "artifact_url",
        "artifact_s3_endpoint",
        "artifact_s3_region",
        "artifact_redirect_endpoint",
        mode="before",
    )
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value  # as container platforms leave out a variable

    @field_validator("artifact_url")
    @classmethod
    def _a_bucket(cls, url: str | None) -> str | None:
        if url is not None:
            bucket_and_prefix(url)  # says at start what is wrong
        return url

    @field_validator("artifact_s3_endpoint", "artifact_redirect_endpoint")
    @classmethod
    def _an_address(cls, url: str | None) -> str | None:
        if url is not None:
            without_credentials(url)
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError("not an http:// or https:// URL")
        return url

    @field_validator("webhook_allowed_networks")
    @classmethod
    def _networks_are_networks(cls, listed: str | None) -> str | None:
        networks(listed)  # says at start, not at the first delivery, what is wrong
        return listed

    @property
    def offered_exports(self) -> frozenset[str] | None:
        """The formats, or None for all."""
        if self.export_formats is None:
            return None
        named = (name.strip() for name in self.export_formats.split(","))
        return frozenset(name for name in named if name)

    @property
    def resolved_database_url(self) -> str:
        """The SQLAlchemy URL in use."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.data_dir.resolve() / 'secateur.db'}"

    @property
    def resolved_rate_limit_url(self) -> str | None:
        """The Redis that counts requests; None when processes count by themselves."""
        if self.rate_limit_url is not None:
            return self.rate_limit_url.get_secret_value()
        broker = "" if self.broker_url is None else self.broker_url.get_secret_value()
        return broker if broker.startswith(("redis://", "rediss://")) else None

    @property
    def resolved_artifact_dir(self) -> Path:
        """Where artifacts lie."""
        return (self.artifact_dir or self.data_dir / "artifacts").resolve()

    @property
    def resolved_artifact_cache_dir(self) -> Path:
        """Where local copies of an object store's artifacts lie."""
        return (self.artifact_cache_dir or self.data_dir / "artifact-cache").resolve()

    @property
    def resolved_scratch_dir(self) -> Path:
        """Where running jobs work."""
        return (self.scratch_dir or self.data_dir / "scratch").resolve()


@lru_cache
def settings() -> Settings:
    """The settings of this process."""
    return Settings()
