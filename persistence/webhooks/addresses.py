"""Which addresses a webhook may reach.

The URL comes from a tenant and the request from inside the operator's network, so without a check
a webhook could call what only machines of that network may: databases, metadata services of
clouds, this service itself (server-side request forgery).
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Ranges that stand for IPv4 addresses: what lies behind them is not what the address looks like.
_TRANSLATED = (ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48"), ip_network("2002::/16"))


def networks(listed: str | None) -> tuple[Network, ...]:
    """The networks of a comma-separated setting.

    Raises:
        ValueError: one is no network.
    """
    return tuple(ip_network(one.strip()) for one in (listed or "").split(",") if one.strip())


def is_permitted(address: Address, allowed: Sequence[Network], *, tls: bool) -> bool:
    """Whether the address is public, or in a network that is allowed all the same.

    Args:
        address: what a name resolved to, or what stands in the URL.
        allowed: the networks of the settings.
        tls: whether the connection is by TLS; without it only allowed networks are called.
    """
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return is_permitted(address.ipv4_mapped, allowed, tls=tls)
    if any(address in network for network in allowed):
        return True
    if not tls or any(address in network for network in _TRANSLATED):
        return False
    return address.is_global and not address.is_multicast
