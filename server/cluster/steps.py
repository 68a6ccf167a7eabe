"""The state of the leader's feed, for the next leader: written in one step with its moves.

Prices from outside must count once, whoever leads. So the leader's feed works in steps. While a step is
made, the publisher publishes nothing. The step's moves, how far each source has come by them, and the
place in the streams that they came from are then one script in Redis.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, NamedTuple

import msgspec
import trio
from msgspec import Meta

from server.fanout.agreement import ahead_of
from server.fanout.hub import Hub
from server.intake.market import Notice
from server.quotes.snapshot import LiveSnapshot

POSITION = "position:"
"""Begins a field of the intake's hash that cannot be a symbol: those are in upper case."""

encode_json = msgspec.json.Encoder().encode


class Progress(NamedTuple):
    """How far the feeds have come. `ids`: those that were counted, the oldest first. `kept`: what
    happened to kept trades, with its moment in microseconds.
    """

    states: Mapping[str, bytes]
    positions: Mapping[str, str]
    ids: Sequence[bytes]
    kept: Sequence[tuple[int, bytes]] = ()


EntryName = Annotated[str, Meta(pattern=r"^[0-9]{1,19}-[0-9]{1,19}\Z")]
"""The name of an entry in a stream: milliseconds and a number. Redis has no larger ones."""


def announce(hub: Hub, markets: Iterable[Notice]) -> None:
    """Tell this instance's clients."""
    for news in markets:
        hub.announce(*news)


def ahead_of_hash(hub: Hub, snapshots: Mapping[str, LiveSnapshot]) -> set[str]:
    """Return the symbols of which this instance has newer quotes than Redis."""
    return {
        symbol
        for symbol, topic in hub.topics.items()
        if symbol not in snapshots or ahead_of(topic, snapshots[symbol]) > 0
    }


class Step(NamedTuple):
    """One step. The cluster does not look into the values of `states`, and into `ids`.

    `states`: how far the sources of each symbol have come. `ids`: those that were counted, 8 bytes
    each. `positions`: the last entry of each stream that was read, by the stream's key. `queue`: the
    stream of which entries up to its position are no longer needed. `kept`: what happened to kept
    trades. Of the stream of these, `kept_entries` are of use, with this one.
    """

    states: dict[str, bytes]
    ids: bytes
    news: tuple[Notice, ...]
    positions: Mapping[str, str]
    queue: str
    kept: bytes = b""
    kept_entries: int = 0


class Record(NamedTuple):
    """The state that goes to Redis with some quotes, for the script PUBLISH. An open market is ''."""

    states: Mapping[str, bytes]
    markets: Mapping[str, bytes] = {}
    ids: bytes = b""
    read_to: str = ""
    kept: bytes = b""
    kept_entries: int = 0


class Steps:
    """Owned by the member. `building`: the feed makes a step at the moment. `pending`: it is made, and
    not written yet. `markets` are those that are not open.

    `states` and `positions` are those of all steps that Redis has, and that this instance heard of.
    `made` is called for each step. `ahead`: symbols of which this instance had newer quotes than Redis
    when it was elected. `gone`: symbols that were delisted or renamed, and that Redis may still have.
    """

    def __init__(self, made: Callable[[], None]) -> None:
        self._made = made
        self.building = False
        self.pending: Step | None = None
        self.states: dict[str, bytes] = {}
        self.positions: dict[str, str] = {}
        self.markets: dict[str, Notice] = {}
        self.ahead: Collection[str] = ()
        self.gone: dict[str, None] = {}
        self._changed = trio.Event()

    @property
    def open(self) -> bool:
        """Whether the topics have moves of a step that is not written."""
        return self.building or self.pending is not None

    def begin(self) -> None:
        """Begin a step, when the last one is written."""
        self.building = True

    async def finish(self, step: Step) -> None:
        """Wait until a step is written. Its moves are in the journal by now."""
        self.pending, self.building = step, False
        self._change()
        self._made()
        while self.pending is step:
            await self._changed.wait()

    def written(self, step: Step | None) -> None:
        """Note that Redis has a step."""
        if step is not None and step is self.pending:
            self.absorb(step.states, step.positions, step.news)
            self.pending = None
            self._change()

    def absorb(
        self, states: Mapping[str, bytes], positions: Mapping[str, str], news: Iterable[Notice]
    ) -> None:
        """Take over a step that Redis has."""
        self.states.update(states)
        self.positions.update(positions)
        for each in news:
            if each.status == "open":
                self.markets.pop(each.symbol, None)
            else:
                self.markets[each.symbol] = each

    def keep(self, ahead: Collection[str]) -> None:
        """Forget the states of symbols that are not `ahead` of Redis: this instance may have missed
        newer ones.
        """
        self.states = {symbol: state for symbol, state in self.states.items() if symbol in ahead}
        self.positions = self.positions if self.states else {}

    def forget(self, symbols: Iterable[str]) -> None:
        """Forget symbols that were delisted."""
        for symbol in symbols:
            for states in self._states():
                states.pop(symbol, None)
            self.markets.pop(symbol, None)
            self.gone[symbol] = None

    def rename(self, symbol: str, new: str, renamed: Callable[[bytes], bytes]) -> None:
        """Go on with a symbol's state under its new name. `renamed` makes the one of the other."""
        for states in self._states():
            if state := states.pop(symbol, None):
                states.setdefault(new, renamed(state))
        if market := self.markets.pop(symbol, None):
            self.markets.setdefault(new, market._replace(symbol=new))
        self.gone[symbol] = None

    def _states(self) -> Iterator[dict[str, bytes]]:
        yield self.states
        if self.pending:
            yield self.pending.states

    def told(self, gone: Iterable[str]) -> None:
        """Note that Redis has no more of these symbols."""
        for symbol in gone:
            self.gone.pop(symbol, None)

    def newest_of(self, stored: Progress) -> tuple[Progress, Collection[str]]:
        """Go on from what Redis has, or from what this instance heard of where that is newer. Return
        also the symbols of which Redis has to be told.
        """
        heard = {
            symbol: state
            for symbol, state in self.states.items()
            if symbol in self.ahead or symbol not in stored.states
        }
        positions = dict(stored.positions)
        if heard:
            for key, place in self.positions.items():
                places = place, positions.get(key, place)
                positions[key] = max(places, key=lambda name: [*map(int, name.split("-"))])
        self.ahead, self.positions = (), positions
        self.states = dict(stored.states) | heard
        return stored._replace(states=self.states, positions=positions), heard

    def record_of_others(self, symbols: Iterable[str]) -> Record:
        """Return what goes with the quotes of `symbols` that the pending step does not concern. It has
        nothing of the step: if this instance is killed, Redis must not have a part of one.
        """
        return Record({each: state for each in symbols if (state := self.states.get(each))})

    def record(
        self, symbols: Iterable[str], *, whole: bool = False, gone: Iterable[str] = ()
    ) -> Record:
        """Return what goes with the quotes of `symbols`, and with those of the pending step. `whole`:
        Redis may have forgotten the positions and markets. Redis is to forget those that are `gone`.
        """
        step = self.pending
        newest = step.states if step else {}
        states = {
            symbol: state
            for symbol in symbols
            if (state := newest.get(symbol) or self.states.get(symbol))
        }
        news = {each.symbol: each for each in step.news} if step else {}
        if whole:
            news = self.markets | news
        if step or whole:
            positions = self.positions | dict(step.positions if step else {})
            states |= {POSITION + key: place.encode() for key, place in positions.items()}
        markets = {
            symbol: b"" if each.status == "open" else encode_json(each)
            for symbol, each in news.items()
        }
        nothing = dict.fromkeys(gone, b"")
        return Record(
            nothing | states,
            nothing | markets,
            step.ids if step else b"",
            step.positions.get(step.queue, "") if step else "",
            step.kept if step else b"",
            step.kept_entries if step else 0,
        )

    def abandon(self) -> bool:
        """Forget a step that is not written. Return whether there is one."""
        was_open, self.building, self.pending = self.open, False, None
        self._change()
        return was_open

    async def wait_built(self) -> None:
        """Wait until no step is made."""
        while self.building:
            await self._changed.wait()

    def replace_markets(self, markets: Iterable[Notice]) -> Iterator[Notice]:
        """Take over all markets that are not open. Return what is news in that."""
        new = {each.symbol: each for each in markets}
        gone = [Notice(symbol, "open", "") for symbol in self.markets if symbol not in new]
        changed = [each for each in new.values() if self.markets.get(each.symbol) != each]
        self.markets = new
        yield from gone
        yield from changed

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
