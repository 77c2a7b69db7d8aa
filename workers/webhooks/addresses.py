"""From a webhook's host to the one address that is called.

A name is resolved once, each address is looked at (`persistence.webhooks.addresses`), and the
connection goes to the address that was looked at: a name that answers differently a moment later
(DNS rebinding) gains nothing.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from ipaddress import ip_address

from persistence.webhooks.addresses import Network, is_permitted


class AddressRefused(Exception):
    """The host leads to addresses that may not be called, or to none."""


async def resolve(host: str, port: int, allowed: Sequence[Network], *, tls: bool) -> str:
    """An address of the host that may be called.

    Raises:
        AddressRefused: it has no address, or only ones that may not be called.
    """
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise AddressRefused(f"the name `{host}` has no address") from error
    for entry in found:
        address = ip_address(str(entry[4][0]).partition("%")[0])
        if is_permitted(address, allowed, tls=tls):
            return str(address)
    raise AddressRefused(
        f"`{host}` leads to an address that webhooks may not call" + ("" if tls else " without TLS")
    )
