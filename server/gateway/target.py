"""What a request's first line names: path and query of its target (RFC 9112 §3.2), for both ports."""

import re

_ABSOLUTE = re.compile(
    r"https?://(?:[^/?@:\[\]]+|\[[0-9a-f:.]+\])(?::[0-9]{0,5})?(?=[/?]|$)", re.IGNORECASE
)
"""The absolute-form's beginning (RFC 9112 §3.2.2, RFC 6455 §4.1); a host may be an IPv6 address."""


def split_target(target: str) -> tuple[str, str]:
    """Return path and query as they are written, neither decoded nor normalized.

    A proxy may guard a path by its spelling, so no second spelling may lead to the same place.
    `//host/path` is a path, not a host and a path. A target in no known form, or with a fragment,
    which never reaches a server, is all path: nothing is found there.
    """
    if "#" in target:
        return target, ""
    if absolute := _ABSOLUTE.match(target):
        target = target[absolute.end() :]
        if not target.startswith("/"):
            target = "/" + target
    path, _, query = target.partition("?")
    return path, query
