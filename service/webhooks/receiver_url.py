"""Which URLs a webhook may have. What a name leads to is looked at again before every attempt."""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from secateur.resources import FieldProblem

from persistence.webhooks.addresses import is_permitted, networks
from service.problems import RequestInvalid

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?\.?|\[[0-9A-Fa-f:.]+\]")
_VISIBLE = re.compile(r"[!-~]+")


def check_url(url: str, allowed_networks: str | None) -> None:
    """Refuse what can never be called.

    Args:
        url: as the caller gave it.
        allowed_networks: of the settings.

    Raises:
        RequestInvalid: names `url` and says what is wrong with it.
    """
    fault = _fault(url, allowed_networks)
    if fault is not None:
        raise RequestInvalid([FieldProblem(field="url", message=fault)])


def _fault(url: str, allowed_networks: str | None) -> str | None:
    if not _VISIBLE.fullmatch(url):
        return "Only printable ASCII characters, without spaces, can stand in it; percent-encode."
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "This is no URL that can be called."
    if parts.scheme not in ("http", "https") or not host or port == 0:
        return "It must be an absolute URL: `https://host/path`."
    return _part_fault(parts, host) or _address_fault(parts.scheme, host, allowed_networks)


def _part_fault(parts: SplitResult, host: str) -> str | None:
    if parts.username is not None or parts.password is not None:
        return "It holds a user name or password; the signature proves who sends a message."
    if parts.fragment:
        return "A fragment (`#...`) is never sent; take it out."
    written = parts.netloc.rpartition(":")[0] if parts.port is not None else parts.netloc
    if not _NAME.fullmatch(written.removesuffix(":")) or len(host) > 253:
        return f"`{host}` is no host name; write international names in their ASCII form (xn--)."
    return None


def _address_fault(scheme: str, host: str, allowed_networks: str | None) -> str | None:
    allowed = networks(allowed_networks)
    if scheme == "http" and not allowed:
        return "It must begin with `https://`."
    try:
        address = ip_address(host)
    except ValueError:
        return None  # a name; its addresses are looked at when it is called
    if is_permitted(address, allowed, tls=scheme == "https"):
        return None
    return (
        "Webhooks call public addresses only, by https; the operator can allow more with "
        "SECATEUR_WEBHOOK_ALLOWED_NETWORKS."
    )
