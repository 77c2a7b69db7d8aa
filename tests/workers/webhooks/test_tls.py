"""By TLS the certificate must be the name's, though the connection goes to a checked address."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from persistence.webhooks.addresses import networks
from persistence.webhooks.deliveries import Attempt, Due
from persistence.webhooks.subscriptions import new_secret
from workers.webhooks.sending import send, sender


def certificate(folder: Path, names: list[x509.GeneralName]) -> Path:
    """A self-signed certificate and its key in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "receiver")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "receiver.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return file


class Taker(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(params=[["localhost"], ["127.0.0.1"], ["other.example"]], ids="-".join)
def receiver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, int, Path]]:
    (name,) = request.param
    is_address = name[0].isdigit()
    general = x509.IPAddress(ipaddress.ip_address(name)) if is_address else x509.DNSName(name)
    file = certificate(tmp_path, [general])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Taker)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield name, server.server_port, file
    server.shutdown()
    server.server_close()
    thread.join(timeout=10)


def attempt(url: str, ca_file: Path | None) -> Attempt:
    due = Due("msg_1", "whk_1", url, (new_secret(),), "{}")

    async def run() -> Attempt:
        async with sender(5.0, ca_file) as client:
            return await send(client, due, allowed=networks("127.0.0.0/8"), timeout_seconds=5.0)

    return asyncio.run(run())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_only_the_name_of_the_url(receiver: tuple[str, int, Path]) -> None:
    name, port, file = receiver
    for host in ("localhost", "127.0.0.1"):
        done = attempt(f"https://{host}:{port}/hook", file)
        assert done.delivered == (host == name)
        if host != name:
            assert "certificate" in done.error.lower()


def test_an_unknown_authority(receiver: tuple[str, int, Path]) -> None:
    _, port, _ = receiver
    done = attempt(f"https://localhost:{port}/hook", None)
    assert "certificate" in done.error.lower()
