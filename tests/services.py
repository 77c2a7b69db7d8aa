"""PostgreSQL, Redis and RabbitMQ for the tests.

A server that answers on its default port and lets the tests make a corner of their own (a
database, an empty numbered database, a virtual host) is used as it is. Otherwise a private one is
started from the installed binaries on a free port in a temporary folder. When neither is possible
the tests fail and say what to install: nothing is skipped.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import kombu
import kombu.exceptions
import psycopg
import redis
from psycopg import sql

HOST = "127.0.0.1"
START_SECONDS = 60.0


class ServiceUnavailable(Exception):
    """Neither a usable server nor a binary to start one."""


@dataclass(frozen=True)
class Service:
    """A running server and how the tests came by it."""

    name: str
    url: str
    version: str
    port: int
    origin: str

    def __str__(self) -> str:
        return f"{self.name} {self.version} on {HOST}:{self.port} ({self.origin})"


def answers(port: int) -> bool:
    """Whether something listens on the port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def binary(name: str, folders: str, package: str) -> str:
    """Path of an installed server binary: the newest of the glob `folders`, or on PATH."""
    found = sorted(Path("/").glob(f"{folders}/{name}"), key=lambda path: path.parts)
    path = str(found[-1]) if found else shutil.which(name)
    if path is None:
        raise ServiceUnavailable(
            f"no server answers and `{name}` is not installed; "
            f"install it (apt-get install {package}) or run .ci/run, which does"
        )
    return path


@contextmanager
def private_folder(user: str | None) -> Iterator[Path]:
    """A temporary folder that `user` owns, removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="secateur-tests-"))
    try:
        if user is not None:
            shutil.chown(folder, user)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def server_process(
    arguments: list[str],
    ready: Callable[[], Any],
    log: Path,
    *,
    stop_signal: signal.Signals = signal.SIGTERM,
    **options: Any,
) -> Iterator[None]:
    """Run a server until the block ends; `ready` raises as long as it is not."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            arguments, stdout=output, stderr=output, start_new_session=True, **options
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            if process.poll() is not None:
                raise ServiceUnavailable(f"{arguments[0]} stopped at once:\n{log.read_text()}")
            try:
                ready()
                break
            except (OSError, psycopg.Error, redis.RedisError, kombu.exceptions.KombuError):
                if time.monotonic() > deadline:
                    raise ServiceUnavailable(
                        f"{arguments[0]} did not get ready:\n{log.read_text()}"
                    ) from None
                time.sleep(0.1)
        yield
    finally:
        process.send_signal(stop_signal)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def unprivileged_user() -> str | None:
    """The account that servers refusing to run as root run under; None when not root."""
    if os.getuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


# PostgreSQL ---------------------------------------------------------------------------------


def _postgres_version(url: str) -> str:
    with psycopg.connect(url, connect_timeout=5) as connection:
        allowed = connection.execute(
            "SELECT rolsuper OR rolcreatedb FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
        if allowed is None or not allowed[0]:
            raise psycopg.OperationalError("the role may not create databases")
        number = connection.info.server_version
    return f"{number // 10000}.{number % 10000}"


@contextmanager
def postgres_server() -> Iterator[Service]:
    """A PostgreSQL server on which databases can be made; `url` is for administration."""
    url = os.environ.get("SECATEUR_TEST_POSTGRES", f"postgresql://postgres@{HOST}:5432/postgres")
    refused = "nothing answers on 5432"
    if answers(5432) or "SECATEUR_TEST_POSTGRES" in os.environ:
        try:
            yield Service("PostgreSQL", url, _postgres_version(url), 5432, "found running")
            return
        except psycopg.OperationalError as error:
            refused = f"the one on 5432 refuses: {str(error).splitlines()[0]}"
    folders = "usr/lib/postgresql/*/bin"
    initdb = binary("initdb", folders, "postgresql")
    postgres = binary("postgres", folders, "postgresql")
    user = unprivileged_user()
    with private_folder(user) as folder:
        data, port = folder / "data", free_port()
        subprocess.run(
            [initdb, "-D", str(data), "-U", "postgres", "--auth=trust", "-E", "UTF8", "-N"],
            check=True, user=user, capture_output=True, cwd=folder,
        )  # fmt: skip
        url = f"postgresql://postgres@{HOST}:{port}/postgres"
        arguments = [postgres, "-D", str(data), "-h", HOST, "-p", str(port), "-k", str(folder)]
        with server_process(
            [*arguments, "-c", "fsync=off", "-c", "max_connections=200"],
            lambda: _postgres_version(url),
            folder / "log",
            stop_signal=signal.SIGINT,
            user=user,
            cwd=folder,
        ):
            yield Service("PostgreSQL", url, _postgres_version(url), port, f"private: {refused}")


@contextmanager
def postgres_database(server: Service) -> Iterator[str]:
    """A fresh, empty database; its SQLAlchemy URL. Dropped at the end."""
    name = sql.Identifier(f"secateur_tests_{secrets.token_hex(8)}")
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(name))
    try:
        base = server.url.rpartition("/")[0].replace("postgresql://", "postgresql+psycopg://")
        yield f"{base}/{name.as_string(None).strip(chr(34))}"
    finally:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


# Redis --------------------------------------------------------------------------------------

CLAIM = "secateur-tests-claim"


def _redis_version(port: int) -> str:
    with redis.Redis(HOST, port, socket_timeout=5) as client:
        return str(client.info("server")["redis_version"])


def _claim_redis_database(port: int) -> int | None:
    """An empty numbered database that nobody else got hold of, or None."""
    with redis.Redis(HOST, port, socket_timeout=5) as admin:
        count = int(admin.config_get("databases")["databases"])
    for number in range(count - 1, 0, -1):
        with redis.Redis(HOST, port, db=number, socket_timeout=5) as client:
            if client.dbsize() == 0 and client.set(CLAIM, os.getpid(), nx=True, ex=7200):
                return number
    return None


@contextmanager
def redis_server() -> Iterator[Service]:
    """A Redis with an empty numbered database for these tests alone."""
    refused = "nothing answers on 6379"
    if answers(6379):
        try:
            number = _claim_redis_database(6379)
            version = _redis_version(6379)
        except redis.RedisError as error:
            number, refused = None, f"the one on 6379 refuses: {error}"
        else:
            refused = "every numbered database of the one on 6379 holds data"
        if number is not None:
            url = f"redis://{HOST}:6379/{number}"
            try:
                yield Service("Redis", url, version, 6379, "found running")
            finally:
                with redis.Redis.from_url(url) as client:
                    client.flushdb()
            return
    path, port = binary("redis-server", "usr/bin", "redis-server"), free_port()
    with ExitStack() as stack:
        folder = stack.enter_context(private_folder(None))
        arguments = [path, "--bind", HOST, "--port", str(port), "--dir", str(folder), "--save", ""]
        ready = partial(_redis_version, port)
        stack.enter_context(server_process(arguments, ready, folder / "log"))
        url = f"redis://{HOST}:{port}/0"
        yield Service("Redis", url, _redis_version(port), port, f"private: {refused}")


# RabbitMQ -----------------------------------------------------------------------------------


def _rabbitmq_version(url: str) -> str:
    with kombu.Connection(url, connect_timeout=5) as connection:
        connection.connect()
        return str(connection.connection.server_properties["version"])


def _rabbitmqctl(*arguments: str) -> None:
    path = shutil.which("rabbitmqctl", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if path is None:
        raise ServiceUnavailable("rabbitmqctl is not installed")
    done = subprocess.run(
        [path, "-q", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode != 0:
        output = (done.stderr + done.stdout).strip().splitlines()
        raise ServiceUnavailable(output[0] if output else "rabbitmqctl failed")


def rabbitmq_environment(folder: Path, port: int) -> dict[str, str]:
    """What a private node in `folder` is started with; the folder gets its configuration."""
    (folder / "enabled_plugins").write_text("[].\n")
    (folder / "rabbitmq.conf").write_text(
        f"listeners.tcp.local = {HOST}:{port}\ndefault_vhost = tests\n"
    )
    return os.environ | {
        "HOME": str(folder),
        "ERL_EPMD_PORT": str(free_port()),
        "RABBITMQ_NODENAME": f"secateur-tests-{port}@localhost",
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "logs"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "absent.config"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "absent-env.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
    }


@contextmanager
def rabbitmq_server() -> Iterator[Service]:
    """A RabbitMQ with a virtual host for these tests alone."""
    refused = "nothing answers on 5672"
    if answers(5672):
        vhost = f"secateur-tests-{secrets.token_hex(8)}"
        url = f"amqp://guest:guest@{HOST}:5672/{vhost}"
        try:
            _rabbitmqctl("add_vhost", vhost)
            _rabbitmqctl("set_permissions", "-p", vhost, "guest", ".*", ".*", ".*")
            version = _rabbitmq_version(url)
        except (ServiceUnavailable, OSError) as error:
            refused = f"the one on 5672 gives no virtual host: {error}"
        else:
            try:
                yield Service("RabbitMQ", url, version, 5672, "found running")
            finally:
                _rabbitmqctl("delete_vhost", vhost)
            return
    # The script in /usr/sbin changes user and folder; the one it calls does neither.
    path = binary("rabbitmq-server", "usr/lib/rabbitmq/bin", "rabbitmq-server")
    port = free_port()
    with private_folder(None) as folder:
        environment = rabbitmq_environment(folder, port)
        url = f"amqp://guest:guest@{HOST}:{port}/tests"
        try:
            with server_process(
                [path],
                lambda: _rabbitmq_version(url),
                folder / "log",
                env=environment,
                cwd=folder,
            ):
                origin = f"private: {refused}"
                yield Service("RabbitMQ", url, _rabbitmq_version(url), port, origin)
        finally:
            # The node starts its own port mapper, which outlives it.
            epmd = binary("epmd", "usr/lib/erlang/erts-*/bin", "erlang-base")
            subprocess.run([epmd, "-kill"], env=environment, capture_output=True, check=False)
