"""The log's record of what administrators do."""

import structlog

log = structlog.get_logger()


def audit(action: str, user: str | None, address: str, **details: object) -> None:
    """Log one action of an administrator.

    Arguments:
        user: None for a request to the operators' own port without a token.
        address: the administrator's.
    """
    log.info("admin", action=action, user=user, address=address, **details)
