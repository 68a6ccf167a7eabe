"""Path and query of the target in a request's first line (RFC 9112 §3.2), for both ports."""

import re

_ABSOLUTE = re.compile(
    r"https?://(?:[^/?@:\[\]]+|\[[0-9a-f:.]+\])(?::[0-9]{0,5})?(?=[/?]|$)", re.IGNORECASE
)
"""The beginning of the absolute form (RFC 9112 §3.2.2, RFC 6455 §4.1); it may have an IPv6 address."""


def split_target(target: str) -> tuple[str, str]:
    """Return path and query as they are written, neither decoded nor normalized.

    A proxy may guard a path by its spelling, so no second spelling may lead to the same place.
    `//host/path` is a path, not a host and a path. A target of unknown form counts as a path that does
    not exist. So does one with a fragment, which clients must not send.
    """
    if "#" in target:
        return target, ""
    if absolute := _ABSOLUTE.match(target):
        target = target[absolute.end() :]
        if not target.startswith("/"):
            target = "/" + target
    path, _, query = target.partition("?")
    return path, query
