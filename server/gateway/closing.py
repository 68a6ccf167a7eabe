"""All closes that the server makes, each with the code and the reason that it sends.

RFC 6455 §7.4.1 defines the codes below 3000. Those from 4000 are this protocol's own.
"""

from enum import Enum
from typing import NamedTuple


class Closing(NamedTuple):
    """`code` and `reason` go into the close frame. With `fails`, all that the client still sends
    is discarded. `lost`: the client was silent or too slow.
    """

    code: int
    reason: str
    fails: bool = False
    lost: bool = False


class Close(Enum):
    """The closes that this server makes."""

    GOING_AWAY = Closing(1001, "the server is going away, reconnect")
    PROTOCOL_ERROR = Closing(1002, "protocol error", fails=True)
    BINARY = Closing(1003, "binary messages are not understood", fails=True)
    TEXT = Closing(1003, "this connection speaks MessagePack, in binary messages", fails=True)
    INVALID_UTF8 = Closing(1007, "text is not valid UTF-8", fails=True)
    BAD_COMMANDS = Closing(1008, "too many bad commands in a row")
    DISCONNECTED = Closing(1008, "an operator closed this connection")
    FLOODING = Closing(1008, "too many commands", fails=True)
    TOO_BIG = Closing(1009, "message too big", fails=True)
    TOKEN_EXPIRED = Closing(4401, "the token expired")
    NO_ANSWER = Closing(4408, "no answer to pings", lost=True)
    IDLE = Closing(4408, "nothing sent or received for too long")
    TOO_SLOW = Closing(4429, "too slow, read faster or ask for less", lost=True)


NO_STATUS = 1005
"""The client's close frame had no code (RFC 6455 §7.1.5)."""

ABNORMAL = 1006
"""The connection ended without a close frame (RFC 6455 §7.1.5)."""

KNOWN_CODES = frozenset(
    {1000, 1001, 1002, 1003, NO_STATUS, ABNORMAL, 1007, 1008, 1009, 1011, 4401, 4408, 4429}
)
"""Codes with a metric label of their own. A client could send four thousand others."""
