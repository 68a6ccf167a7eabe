"""What each command of a client does. All of it is immediate, but for `subscribe` to symbols that
nobody has asked for yet: then the session waits for the store.
"""

import time
from typing import TYPE_CHECKING

from server.fanout.topic import Topic
from server.gateway.auth import BadToken
from server.gateway.handshake import EVERYTHING, STORE_UNAVAILABLE, Selection, select
from server.quotes.duration import parse_duration
from server.quotes.messages import (
    Auth,
    Command,
    Ping,
    Pong,
    QuotesPatch,
    Resync,
    Subscribe,
    Throttle,
    Unsubscribe,
)
from server.quotes.patch import Remove
from server.store.catalogue import StoreUnavailable
from server.store.loader import TooManyLookups

if TYPE_CHECKING:
    from server.gateway.session import Session

NO_SUCH_SYMBOL = "no such symbol"
NOT_SUBSCRIBED = "not subscribed to these symbols"


def execute(session: "Session", command: Command) -> None:
    """Carry out one command. The answer comes in this order: the acknowledgement of what was done,
    the quotes it brings or takes away, the error for what could not be done.
    """
    match command:
        case Subscribe():
            _subscribe(session, command)
        case Unsubscribe():
            _unsubscribe(session, command)
        case Resync():
            _resync(session, command)
        case Auth():
            _auth(session, command)
        case Throttle():
            _throttle(session, command)
        case Ping():
            session.gateway.pool.commands[command.action, "ok"] += 1
            session.send(Pong(time.time_ns() // 1000, command.id))


def _subscribe(session: "Session", command: Subscribe) -> None:
    selection = select(command.symbols, session.gateway.hub.topics)
    directory = session.gateway.directory
    if selection.unknown or (selection.everything and not directory.complete):
        session.deferred = command
    else:
        _subscribe_to(session, command, selection)


async def subscribe_deferred(session: "Session", command: Subscribe) -> None:
    """Carry out a `subscribe` for which the store has to be asked."""
    gateway = session.gateway
    selection = select(command.symbols, gateway.hub.topics)
    if selection.everything:
        try:
            await gateway.directory.list_everything()
        except StoreUnavailable:
            if not session.closing:
                session.refuse(
                    command.action, "store_unavailable", STORE_UNAVAILABLE, command.id, [EVERYTHING]
                )
            return
        selection = select(command.symbols, gateway.hub.topics)
    else:
        cold = len(selection.unknown)
        payer = gateway.budgets.charge_cold(session.identity.user, cold)
        try:
            unavailable = await gateway.directory.list_symbols(selection.unknown, payer)
        except TooManyLookups as error:
            _subscribe_to_known(session, command, selection, str(error))
            return
        selection = select(command.symbols, gateway.hub.topics).without(unavailable)
    if not session.closing:
        _subscribe_to(session, command, selection)


def _subscribe_to_known(
    session: "Session", command: Subscribe, selection: Selection, message: str
) -> None:
    """Leave out the symbols that the user may not have looked up now."""
    if selection.topics:
        _subscribe_to(session, command, selection._replace(unknown=[]))
    session.refuse(command.action, "rate_limited", message, command.id, selection.unknown)


def _subscribe_to(session: "Session", command: Subscribe, selection: Selection) -> None:
    topics, unknown, everything, unavailable = selection
    if everything:
        session.acknowledge(command, [EVERYTHING])
        if not session.everything:
            session.send_quotes(session.subscribe_everything())
        if unknown:
            session.refuse(command.action, "unknown_symbol", NO_SUCH_SYMBOL, command.id, unknown)
        return
    new = [] if session.everything else [topic for topic in topics if topic not in session.topics]
    limit = session.gateway.max_symbols
    if len(session.topics) + len(new) > limit:
        message = f"at most {limit} symbols a connection"
        session.refuse(command.action, "too_many_symbols", message, command.id)
        return
    if topics:
        session.acknowledge(command, _symbols(topics))
        session.subscribe(new)
        session.send_quotes(new)
    if unknown or not (topics or unavailable):
        session.refuse(command.action, "unknown_symbol", NO_SUCH_SYMBOL, command.id, unknown)
    if unavailable:
        session.refuse(
            command.action, "store_unavailable", STORE_UNAVAILABLE, command.id, [*unavailable]
        )


def _unsubscribe(session: "Session", command: Unsubscribe) -> None:
    topics, rest, everything, _ = _subscribed(session, command.symbols)
    if session.everything and not everything:
        message = "subscribed to *, which only ends as a whole"
        symbols = _symbols(topics) + rest
        session.refuse(command.action, "not_subscribed", message, command.id, symbols)
        return
    if topics:
        if (
            session.everything
        ):  # what is taken away is what it has got, also what was listed just now
            session.send_owed(topics)
        if everything:
            session.unsubscribe_everything()
        else:
            session.unsubscribe(topics)
        session.acknowledge(command, [EVERYTHING] if everything else _symbols(topics))
        session.send(_removal(topics))
    if rest or not topics:
        _refuse_unsubscribed(session, command, rest)


def _resync(session: "Session", command: Resync) -> None:
    topics, rest, everything, _ = _subscribed(session, command.symbols)
    if topics:
        session.acknowledge(command, [EVERYTHING] if everything else _symbols(topics))
        session.send_quotes(topics)
    if rest or not topics:
        _refuse_unsubscribed(session, command, rest)


def _refuse_unsubscribed(
    session: "Session", command: Unsubscribe | Resync, symbols: list[str]
) -> None:
    """Without `symbols`, the client asked for all that it has, and has none."""
    symbols = symbols or [EVERYTHING]
    session.refuse(command.action, "not_subscribed", NOT_SUBSCRIBED, command.id, symbols)


def _auth(session: "Session", command: Auth) -> None:
    try:
        identity = session.gateway.authenticator.verify(command.token)
        if identity.user != session.identity.user:
            raise BadToken("the token is another user's")
    except BadToken as error:
        session.refuse(command.action, "unauthorized", str(error), command.id)
    else:
        session.renew(identity)
        session.acknowledge(command, [])


def _throttle(session: "Session", command: Throttle) -> None:
    try:
        interval = parse_duration(str(command.interval))
    except ValueError as error:
        session.refuse(command.action, "bad_command", str(error), command.id)
    else:
        session.throttle(command, interval)


def _subscribed(session: "Session", names: list[str]) -> Selection:
    """The subscribed topics among `names`, and the other names; EVERYTHING stands for all it has."""
    all_topics = session.gateway.hub.topics
    topics, unknown, everything, _ = select(names, all_topics)
    if session.everything:
        return Selection(list(all_topics.values()) if everything else topics, unknown, everything)
    unknown += [topic.symbol for topic in topics if topic not in session.topics]
    has = session.topics if everything else [t for t in topics if t in session.topics]
    return Selection(list(has), unknown, everything)


def _removal(topics: list[Topic]) -> QuotesPatch:
    return QuotesPatch(
        time.time_ns() // 1000,
        {topic.symbol: topic.version for topic in topics},
        [Remove(topic.pointer) for topic in topics],
    )


def _symbols(topics: list[Topic]) -> list[str]:
    return [topic.symbol for topic in topics]
