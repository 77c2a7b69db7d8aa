"""Which addresses may be called."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persistence.webhooks.addresses import is_permitted, networks

PRIVATE = [
    "0.0.0.0",  # noqa: S104 - nothing is bound to it
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "192.168.1.1",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "fc00::1",
    "fe80::1",
    "ff02::1",
    "ff0e::1",
]
PUBLIC = ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:1.1.1.1"]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_refused(address: str) -> None:
    assert not is_permitted(ip_address(address), (), tls=True)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_called_by_tls_only(address: str) -> None:
    assert is_permitted(ip_address(address), (), tls=True)
    assert not is_permitted(ip_address(address), (), tls=False)


def test_allowed_networks() -> None:
    allowed = networks(" 10.1.0.0/16, 127.0.0.1/32,fc00::/7 ,")
    for address in ("10.1.2.3", "127.0.0.1", "::ffff:10.1.2.3", "fc00::1"):
        assert is_permitted(ip_address(address), allowed, tls=False)
    for address in ("10.2.0.1", "127.0.0.2", "::1"):
        assert not is_permitted(ip_address(address), allowed, tls=True)


def test_a_setting_that_is_no_network() -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.1/8"):
        networks("10.0.0.1/8")


@given(st.ip_addresses())
def test_an_ipv4_address_and_its_ipv6_form_are_one(address: object) -> None:
    found = ip_address(str(address))
    if found.version == 4:
        mapped = ip_address(f"::ffff:{found}")
        assert is_permitted(found, (), tls=True) == is_permitted(mapped, (), tls=True)
    if found.is_private or found.is_loopback or found.is_link_local or found.is_multicast:
        mapped4 = getattr(found, "ipv4_mapped", None)
        assert mapped4 is not None or not is_permitted(found, (), tls=True)
