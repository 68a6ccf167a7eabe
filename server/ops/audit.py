"""The log's record of what administrators do, and of what became of it."""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from server.ops.endpoint import Call
from server.ops.problems import RATE_LIMITED, ApiError
from server.store.loader import TooManyLookups

DONE, REFUSED, FAILED = "done", "refused", "failed"
"""Outcomes. A refused action changed nothing. Part of a failed one may be done."""

log = structlog.get_logger()


def audit(
    action: str, user: str | None, address: str, outcome: str = DONE, **details: object
) -> None:
    """Log one action of an administrator, when it is over.

    Arguments:
        user: None for a request to the operators' own port without a token.
        address: the administrator's.
        details: for other outcomes than DONE, with the `code` and the `problem`.
    """
    log.info("admin", action=action, outcome=outcome, user=user, address=address, **details)


@contextmanager
def audited(action: str, call: Call, *, logs_done: bool = True) -> Iterator[dict[str, object]]:
    """Log what becomes of an administrator's request, at the end of the context.

    The context adds details to the record, and sets `outcome` if that is not DONE. Without `logs_done`,
    other code logs what is done.
    """
    record: dict[str, object] = {}
    try:
        yield record
    except TooManyLookups as error:
        record |= {"outcome": REFUSED, "code": RATE_LIMITED.code, "problem": str(error)}
        raise
    except ApiError as error:
        outcome = FAILED if error.status_code >= 500 else REFUSED
        record |= {"outcome": outcome, "code": error.code, "problem": error.detail}
        raise
    except BaseException:
        # A bug, or the end of the time for an answer or of the server.
        record |= {"outcome": FAILED, "code": "internal_error", "problem": "it was broken off"}
        raise
    finally:
        outcome = str(record.pop("outcome", DONE))
        if logs_done or outcome != DONE:
            user = call.user.user if call.user else None
            audit(action, user, call.address, outcome, **record)
