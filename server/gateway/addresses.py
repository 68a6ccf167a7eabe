"""Finds the client's address, which the budgets and the log use.

Behind a proxy every connection has the proxy's address. The proxy tells the client's address in
`X-Forwarded-For`. Anybody can send that header, so only configured proxies are believed.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Network = IPv4Network | IPv6Network

SITE_BITS = 64
"""Leading bits of an IPv6 address that name a site. One client has all addresses of its site
(RFC 4291 §2.5.1, RFC 6177).
"""

MAX_HOPS = 16
"""Proxies in a row that the server follows back. A request may name thousands."""


class Proxies:
    """`trusted`: the networks of the proxies whose `X-Forwarded-For` is believed."""

    def __init__(self, trusted: Sequence[Network] = ()) -> None:
        self._trusted = trusted

    def client(self, peer: str, forwarded: str) -> str:
        """Return the client's address: `peer`, or the one that trusted proxies name.

        Each proxy adds the address of its own caller at the right end. So the rightmost address that is
        not a trusted proxy is the client's. The client may have invented all addresses left of it.

        Arguments:
            peer: the connection's other end, an address without a port.
            forwarded: the header's value, or several values joined by commas, or an empty text.
        """
        nearest = _parse(peer)
        if nearest is None or not self._trusted:
            return peer
        for hop in forwarded.rsplit(",", MAX_HOPS)[: -MAX_HOPS - 1 : -1]:
            if not self._trusts(nearest) or (farther := _parse(hop)) is None:
                break
            nearest = farther
        return str(nearest)

    def _trusts(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self._trusted)


def is_loopback(text: str) -> bool:
    """Return whether the text is an address of this machine itself."""
    address = _parse(text)
    return address is not None and address.is_loopback


def budget_key(address: str) -> str:
    """Return the key of the budget of `address`: an IPv4 address itself, or the site of an IPv6 one."""
    if ":" not in address:
        return address
    parsed = _parse(address)
    if not isinstance(parsed, IPv6Address):
        return str(parsed or address)
    shift = parsed.max_prefixlen - SITE_BITS
    return f"{IPv6Address(int(parsed) >> shift << shift)}/{SITE_BITS}"


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address, None if `text` is not one. It may have a port, as some proxies write it."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
