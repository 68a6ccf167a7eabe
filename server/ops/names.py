"""The names under which operators reach a port of their own.

A foreign site can let its own name point to this port (DNS rebinding). A browser then takes the site's
page for a page of this port, and no check of origins helps. But it sends the site's name in `Host`. So
the port answers only to names that belong to it. A site cannot choose an address as its name.
"""

from collections.abc import Iterable
from ipaddress import ip_address
from socket import gethostname

ANY = "*"
"""Stands for every name, for a port behind a proxy that checks names itself."""

LOCAL = "localhost"
"""Browsers find this name, and names below it, on their own machine (RFC 6761 §6.3)."""


class Names:
    """Knows addresses, `localhost`, this machine's name, and the names that are `given`."""

    def __init__(self, given: Iterable[str] = ()) -> None:
        self._names = {_plain(name) for name in (LOCAL, gethostname(), *given)}

    def know(self, host: str | None) -> bool:
        """Return whether a request's header `Host` names this port, with any number of a port.

        Browsers never leave the header out, so a request without it is a program's.
        """
        if host is None or ANY in self._names:
            return True
        name = _plain(_without_port(host))
        return name in self._names or name.endswith(f".{LOCAL}") or _is_address(name)


def _without_port(host: str) -> str:
    """Return the name or address in a header `Host` (RFC 9110 §7.2)."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _plain(name: str) -> str:
    """Return a name in lower case without the dot at the end of a complete one (RFC 1034 §3.1)."""
    return name.strip().lower().removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
