"""Answers each command of a client with replies, in a fixed order. First comes the acknowledgement,
then the quotes that the command adds or removes, then the error for the part that cannot be carried
out.

Nothing here does I/O or waits. A `subscribe` to symbols that are not in memory has two steps: `execute`
replies with `LookUp`, and the session then calls `subscribe` with what the store knows.
"""

import time
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from msgspec import UNSET, UnsetType

from server.config.redaction import redact
from server.fanout.throttle import granted
from server.gateway.auth import Authenticator, BadToken
from server.gateway.budgets import Budgets
from server.gateway.selection import EVERYTHING, STORE_UNAVAILABLE, Selection, Selector, symbols_of
from server.gateway.subscriptions import (
    Answer,
    LookUp,
    Renew,
    Replies,
    SendQuotes,
    SetInterval,
    Subscriptions,
)
from server.quotes.duration import seconds_of
from server.quotes.instrument import normalize_symbol
from server.quotes.messages import (
    Ack,
    AnyCommand,
    Auth,
    CommandId,
    Error,
    ErrorCode,
    Ping,
    Pong,
    Resync,
    Subscribe,
    SubscribeBars,
    Throttle,
    Unsubscribe,
    UnsubscribeBars,
)
from server.quotes.traded import Timeframe

NO_SUCH_SYMBOL = "no such symbol"
NO_BARS_OF_ALL = "bars need the names of symbols, not *"
NOT_SUBSCRIBED = "not subscribed to these symbols"

MAX_MESSAGE = 300
"""Characters of an error's message, which may quote the command that was wrong."""


class ClientContext(NamedTuple):
    """The values that answers to all clients depend on.

    `max_symbols` is per connection, `command_rate` in commands per second and connection. `counted`
    has the number of answers by action and result.
    """

    selector: Selector
    authenticator: Authenticator
    budgets: Budgets
    max_symbols: int
    command_rate: int
    counted: Counter[tuple[str, str]]

    def refuse(
        self,
        action: str,
        code: ErrorCode,
        message: str,
        id: CommandId | UnsetType = UNSET,
        symbols: list[str] | UnsetType = UNSET,
    ) -> Error:
        """Count a refusal of a command, or of a part of it, and return the message."""
        self.counted[action, code] += 1
        return Error(code, redact(message[:MAX_MESSAGE]), id, symbols)

    def refuse_missing(
        self, action: str, selection: Selection, id: CommandId | UnsetType = UNSET
    ) -> Iterator[Error]:
        """Refuse the symbols that do not exist, and those about which the store gave no answer."""
        if selection.unknown:
            yield self.refuse(action, "unknown_symbol", NO_SUCH_SYMBOL, id, selection.unknown)
        if selection.unavailable:
            symbols = list(selection.unavailable)
            yield self.refuse(action, "store_unavailable", STORE_UNAVAILABLE, id, symbols)


class Commands(NamedTuple):
    """Answers the commands of `user` on one connection."""

    context: ClientContext
    user: str
    subscriptions: Subscriptions

    def execute(self, command: AnyCommand) -> Answer:
        """Answer a command. If a kind of command has no case here, mypy reports a missing return."""
        match command:
            case Subscribe() | SubscribeBars():
                return self._subscribe(command)
            case Unsubscribe() | UnsubscribeBars():
                return self._unsubscribe(command)
            case Resync():
                return self._resync(command)
            case Auth():
                return self._auth(command)
            case Throttle():
                return self._throttle(command)
            case Ping():
                return self._ping(command)

    def _subscribe(self, command: Subscribe | SubscribeBars) -> Answer:
        selection = self.context.selector.select(command.charged_symbols)
        if isinstance(command, SubscribeBars) and selection.everything:
            return (self._refuse(command, "bad_command", NO_BARS_OF_ALL),)
        if self.context.selector.is_cold(selection):
            return (LookUp(command),)
        return self.subscribe(command, selection)

    def subscribe(self, command: Subscribe | SubscribeBars, selection: Selection) -> Replies:
        """Answer `command`, for which `selection` was found."""
        if selection.refused is None:
            return self._subscribe_to(command, selection)
        refusal = self._refuse(command, "rate_limited", str(selection.refused), selection.unknown)
        if not selection.topics:
            return (refusal,)
        return (*self._subscribe_to(command, selection._replace(unknown=[])), refusal)

    def _subscribe_to(self, command: Subscribe | SubscribeBars, selection: Selection) -> Replies:
        if isinstance(command, SubscribeBars):
            yield from self._subscribe_to_bars(command, selection)
            return
        context, mine = self.context, self.subscriptions
        if selection.everything:
            yield self._acknowledge(command, [EVERYTHING])
            if not mine.everything:
                new = mine.new_among(context.selector.topics.values())
                yield mine.start_everything()
                yield SendQuotes(new)
        else:
            new = mine.new_among(selection.topics)
            if mine.count + len(new) > context.max_symbols:
                message = f"at most {context.max_symbols} symbols a connection"
                yield self._refuse(command, "too_many_symbols", message)
                return
            if selection.topics:
                yield self._acknowledge(command, symbols_of(selection.topics))
                if new:
                    yield mine.start(new)
                    yield SendQuotes(new)
        yield from context.refuse_missing(command.action, selection, command.id)

    def _subscribe_to_bars(self, command: SubscribeBars, selection: Selection) -> Replies:
        context, mine, timeframe = self.context, self.subscriptions, command.timeframe
        bars = [topic.context.bars.topic(topic.symbol, timeframe) for topic in selection.topics]
        new = [each for each in bars if each not in mine.bars]
        if mine.count + len(new) > context.max_symbols:
            message = f"at most {context.max_symbols} symbols a connection"
            yield self._refuse(command, "too_many_symbols", message)
            return
        if bars:
            yield self._acknowledge(command, symbols_of(selection.topics), timeframe=timeframe)
            yield mine.start_bars(new)
        yield from context.refuse_missing(command.action, selection, command.id)

    def _unsubscribe_from_bars(self, command: UnsubscribeBars) -> Replies:
        names = dict.fromkeys(map(normalize_symbol, command.bars))
        mine = [each for each in self.subscriptions.bars if each.timeframe == command.timeframe]
        gone = [each for each in mine if each.symbol in names or EVERYTHING in names]
        symbols = [each.symbol for each in gone]
        if gone:
            ack = self._acknowledge(command, symbols, timeframe=command.timeframe)
            yield self.subscriptions.stop_bars(gone, ack)
        if unknown := [name for name in names if name not in symbols and name != EVERYTHING]:
            yield self._refuse(command, "not_subscribed", NOT_SUBSCRIBED, unknown)
        elif not gone:
            yield self._refuse(command, "not_subscribed", NOT_SUBSCRIBED, [EVERYTHING])

    def _unsubscribe(self, command: Unsubscribe | UnsubscribeBars) -> Replies:
        if isinstance(command, UnsubscribeBars):
            yield from self._unsubscribe_from_bars(command)
            return
        selection = self._subscribed(command)
        topics = selection.topics
        if self.subscriptions.everything and not selection.everything:
            message = "subscribed to *, which only ends as a whole"
            symbols = symbols_of(topics) + selection.unknown
            yield self._refuse(command, "not_subscribed", message, symbols)
            return
        if topics:
            yield self.subscriptions.stop(topics, self._acknowledge(command, _named(selection)))
        yield from self._refuse_unsubscribed(command, selection)

    def _resync(self, command: Resync) -> Replies:
        selection = self._subscribed(command)
        if selection.topics:
            yield self._acknowledge(command, _named(selection))
            yield SendQuotes(selection.topics)
        yield from self._refuse_unsubscribed(command, selection)

    def _subscribed(self, command: Unsubscribe | Resync) -> Selection:
        """Select the subscribed topics; the others are `unknown`. EVERYTHING selects all of them."""
        mine, selector = self.subscriptions, self.context.selector
        selection = selector.select(command.symbols)
        if mine.everything:
            has = list(selector.topics.values()) if selection.everything else selection.topics
            return selection._replace(topics=has)
        has = [topic for topic in selection.topics if topic in mine.topics]
        others = symbols_of(mine.new_among(selection.topics))
        return selection._replace(
            topics=list(mine.topics) if selection.everything else has,
            unknown=selection.unknown + others,
        )

    def _refuse_unsubscribed(
        self, command: Unsubscribe | Resync, selection: Selection
    ) -> Iterator[Error]:
        if selection.unknown or not selection.topics:
            # Without a name, the client asked for all that it has, and has nothing.
            symbols = selection.unknown or [EVERYTHING]
            yield self._refuse(command, "not_subscribed", NOT_SUBSCRIBED, symbols)

    def _auth(self, command: Auth) -> Replies:
        try:
            identity = self.context.authenticator.verify(command.token)
            if identity.user != self.user:
                raise BadToken("the token is another user's")
        except BadToken as error:
            return (self._refuse(command, "unauthorized", str(error)),)
        return Renew(identity), self._acknowledge(command, [])

    def _throttle(self, command: Throttle) -> Replies:
        try:
            interval = granted(seconds_of(command.interval))
        except ValueError as error:
            return (self._refuse(command, "bad_command", str(error)),)
        return SetInterval(interval), self._acknowledge(command, [], interval)

    def _ping(self, command: Ping) -> Replies:
        self.context.counted[command.action, "ok"] += 1
        return (Pong(time.time_ns() // 1000, command.id),)

    def _acknowledge(
        self,
        command: AnyCommand,
        symbols: list[str],
        interval: float | UnsetType = UNSET,
        timeframe: Timeframe | UnsetType = UNSET,
    ) -> Ack:
        self.context.counted[command.action, "ok"] += 1
        return Ack(command.action, symbols, command.id, interval, timeframe=timeframe)

    def _refuse(
        self,
        command: AnyCommand,
        code: ErrorCode,
        message: str,
        symbols: list[str] | UnsetType = UNSET,
    ) -> Error:
        return self.context.refuse(command.action, code, message, command.id, symbols)


def _named(selection: Selection) -> list[str]:
    """Return the symbols that an acknowledgement names."""
    return [EVERYTHING] if selection.everything else symbols_of(selection.topics)
