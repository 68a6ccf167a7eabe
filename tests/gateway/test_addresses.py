"""The address of a request's client, and the addresses that share a budget."""

from ipaddress import ip_network

import pytest

from server.gateway.addresses import Proxies, budget_key

PROXIES = Proxies([ip_network("10.0.0.0/8"), ip_network("2001:db8:1::/48")])


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.5", "", "203.0.113.5"),
        ("203.0.113.5", "198.51.100.1", "203.0.113.5"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "192.0.2.66, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "192.0.2.66,198.51.100.1 , 10.2.3.4", "198.51.100.1"),
        ("10.0.0.1", "10.9.9.9, 198.51.100.1,2001:db8:1::5", "198.51.100.1"),
        ("10.0.0.1", "10.1.1.1, 10.2.2.2", "10.1.1.1"),
        ("10.0.0.1", "198.51.100.1, unknown", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1, , 10.2.2.2", "10.2.2.2"),
        ("10.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("10.0.0.1", "[2001:db8:2::7]:443", "2001:db8:2::7"),
        ("10.0.0.1", "[2001:db8:2::7]:443]", "2001:db8:2::7"),
        ("10.0.0.1", "198.51.100.1" + ",10.0.0.2" * 15, "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1" + ",10.0.0.2" * 16, "10.0.0.2"),
        ("2001:db8:1::1", "2001:DB8:2::7", "2001:db8:2::7"),
        ("::ffff:10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1," + "10.0.0.2," * 10_000, "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1" + ",10.0.0.2" * 10_000, "10.0.0.2"),
        ("", "198.51.100.1", ""),
    ],
)
def test_client_is_the_nearest_that_is_no_trusted_proxy(peer, forwarded, client):
    """The client may have sent anything left of it. A part that is not an address ends the search."""
    assert PROXIES.client(peer, forwarded) == client


def test_nobody_is_believed_by_default():
    """Without configured proxies the header is ignored."""
    assert Proxies().client("10.0.0.1", "198.51.100.1") == "10.0.0.1"


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("198.51.100.1", "198.51.100.1"),
        ("::ffff:198.51.100.1", "198.51.100.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_ipv6_counts_by_site(address, key):
    """A client has all addresses of a /64, so they share one budget."""
    assert budget_key(address) == key
