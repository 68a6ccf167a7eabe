"""The protocol of a connection by itself: bytes go in, replies come out. No socket, task or clock."""

import json
from collections import Counter
from typing import Any, cast

import pytest

from server.fanout.frame import pong_frame
from server.fanout.hub import Hub
from server.gateway.auth import Authenticator
from server.gateway.budgets import USER_SPENT, Budget, Budgets
from server.gateway.closing import Close
from server.gateway.commands import ClientContext
from server.gateway.limits import BURST_SECONDS, REFUSALS_BEFORE_CLOSE
from server.gateway.protocol import TOO_FAST, Phase, Protocol, waits_its_turn
from server.gateway.selection import EVERYTHING, Selection, Selector
from server.gateway.subscriptions import (
    ClientClosed,
    LookUp,
    Renew,
    SendQuotes,
    SetInterval,
    StartAllUpdates,
    StartUpdates,
    StopUpdates,
    Subscriptions,
)
from server.quotes.messages import Ack, Error, Pong, Subscribe
from server.store.loader import TooManyLookups
from tests.commands import COMMANDS, example
from tests.fanout.peer import instruments
from tests.gateway.wire import BINARY, CONTINUATION, PING, PONG, TEXT, close, frame

SECRET = "a secret of the tests, 32 bytes or longer"
RATE = 5
MAX_SYMBOLS = 2


class Directory:
    """Stands for the store, which is never asked."""

    complete = False


class Connection:
    """A protocol with all that it needs; `now` is its clock."""

    def __init__(self, *symbols: str, user_rate: float = 1e9) -> None:
        self.now = 0.0
        self.topics = Hub(instruments(*symbols)).topics
        self.directory = Directory()
        self.authenticator = Authenticator(secret=SECRET)
        self.commands = Budget(user_rate, clock=lambda: self.now)
        budgets = Budgets(commands=self.commands)
        self.counted: Counter[tuple[str, str]] = Counter()
        context = ClientContext(
            Selector(self.topics, cast("Any", self.directory), budgets),
            self.authenticator,
            budgets,
            MAX_SYMBOLS,
            RATE,
            self.counted,
        )
        self.subscriptions = Subscriptions()
        self.protocol = Protocol(context, "ann", self.subscriptions, clock=lambda: self.now)

    def receive(self, data: bytes) -> list[Any]:
        """Return the replies to some bytes."""
        frames = self.protocol.receive(data)
        return [reply for frame in frames for reply in self.protocol.answer(frame)]

    def say(self, action: str, **fields: Any) -> list[Any]:
        """Return the replies to a command."""
        return self.receive(command(action, **fields))


def command(action: str, **fields: Any) -> bytes:
    return frame(TEXT, json.dumps({"action": action, **fields}).encode())


@pytest.fixture
def connection() -> Connection:
    """A connection to a server with three symbols."""
    return Connection("AAPL", "BRK.B", "MSFT")


def test_subscribe_is_acknowledged_before_its_quotes(connection):
    """A second time, the acknowledgement is all that comes."""
    aapl = connection.topics["AAPL"]
    assert connection.say("subscribe", symbols=["aapl", "AAPL"], id=1) == [
        Ack("subscribe", ["AAPL"], 1),
        StartUpdates([aapl]),
        SendQuotes([aapl]),
    ]
    assert connection.say("subscribe", symbols=["AAPL"]) == [Ack("subscribe", ["AAPL"])]
    assert list(connection.subscriptions.topics) == [aapl]


def test_more_symbols_than_allowed_are_none(connection):
    """The limit is for all commands together; nothing of the command that exceeds it is done."""
    connection.say("subscribe", symbols=["AAPL"])
    (error,) = connection.say("subscribe", symbols=["MSFT", "BRK.B"], id="x")
    assert (error.code, error.id) == ("too_many_symbols", "x")
    assert len(connection.subscriptions.topics) == 1


def test_unsubscribed_quotes_are_removed(connection):
    """Subscribed symbols are removed; the others are refused by name."""
    aapl = connection.topics["AAPL"]
    connection.say("subscribe", symbols=["AAPL"])
    stop, error = connection.say("unsubscribe", symbols=["AAPL", "MSFT", "nope"])
    assert stop == StopUpdates([aapl], False, Ack("unsubscribe", ["AAPL"]))
    assert (error.code, error.symbols) == ("not_subscribed", ["NOPE", "MSFT"])
    assert not connection.subscriptions.topics


def test_everything_takes_the_place_of_single_symbols(connection):
    """And ends as a whole."""
    connection.directory.complete = True
    aapl, *others = connection.topics.values()
    connection.say("subscribe", symbols=["AAPL"])
    assert connection.say("subscribe", symbols=["*"]) == [
        Ack("subscribe", [EVERYTHING]),
        StartAllUpdates([aapl]),
        SendQuotes(others),
    ]
    assert connection.say("subscribe", symbols=["*"]) == [Ack("subscribe", [EVERYTHING])]
    assert connection.say("subscribe", symbols=["AAPL"]) == [Ack("subscribe", ["AAPL"])]
    (error,) = connection.say("unsubscribe", symbols=["AAPL"])
    assert (error.code, error.symbols) == ("not_subscribed", ["AAPL"])
    (stop,) = connection.say("unsubscribe", symbols=["*"])
    assert stop == StopUpdates([aapl, *others], True, Ack("unsubscribe", [EVERYTHING]))
    (error,) = connection.say("resync", symbols=["*"])
    assert (error.code, error.symbols) == ("not_subscribed", [EVERYTHING])


def test_symbol_that_is_not_in_memory_is_looked_up_first(connection):
    """The command is answered with what the store knows; nothing is done before."""
    (look_up,) = connection.say("subscribe", symbols=["AAPL", "NEW", "ODD"], id=3)
    assert look_up == LookUp(Subscribe(symbols=["AAPL", "NEW", "ODD"], id=3))
    assert not connection.subscriptions.topics
    aapl = connection.topics["AAPL"]
    found = Selection([aapl], ["NEW"], unavailable=["ODD"])
    *done, unknown, unavailable = connection.protocol.subscribe(look_up.command, found)
    started = [StartUpdates([aapl]), SendQuotes([aapl])]
    assert done == [Ack("subscribe", ["AAPL"], 3), *started]
    assert isinstance(unknown, Error)
    assert (unknown.code, unknown.symbols, unknown.id) == ("unknown_symbol", ["NEW"], 3)
    assert isinstance(unavailable, Error)
    assert (unavailable.code, unavailable.symbols) == ("store_unavailable", ["ODD"])


def test_lookups_that_are_refused_leave_what_is_in_memory(connection):
    """A user whose lookups are spent gets the symbols that need none."""
    asked = Subscribe(symbols=["AAPL", "NEW"])
    found = Selection([connection.topics["AAPL"]], ["NEW"], refused=TooManyLookups(2.0))
    *done, error = connection.protocol.subscribe(asked, found)
    assert done[0] == Ack("subscribe", ["AAPL"])
    assert isinstance(error, Error)
    assert (error.code, error.symbols) == ("rate_limited", ["NEW"])


def test_other_commands_reply_with_what_is_to_be_done(connection):
    """`auth` renews, `throttle` sets the next longer interval there is, `ping` is answered."""
    token = connection.authenticator.sign("ann", 60)
    renewal, ack = connection.say("auth", token=token)
    assert isinstance(renewal, Renew)
    assert ack == Ack("auth", [])
    (error,) = connection.say("auth", token=connection.authenticator.sign("bob", 60))
    assert error.code == "unauthorized"
    throttled = connection.say("throttle", interval="300ms")
    assert throttled == [SetInterval(0.5), Ack("throttle", [], interval=0.5)]
    (pong,) = connection.say("ping", id=7)
    assert isinstance(pong, Pong)
    assert pong.id == 7
    assert connection.counted["ping", "ok"] == 1


@pytest.mark.parametrize("action", COMMANDS)
def test_every_command_is_answered_and_counted(connection, action):
    """A good command of each kind gets a reply, and is counted under its name."""
    assert connection.receive(frame(TEXT, json.dumps(example(action)).encode()))
    assert [name for name, _ in connection.counted] == [action]


@pytest.mark.parametrize("step", [1, 2, 3, 7])
def test_bytes_may_come_in_any_pieces(connection, step):
    """However the network cuts the frames up, the replies are the same."""
    text = b'{"action":"subscribe","symbols":["AAPL"]}'
    sent = frame(TEXT, text[:9], fin=False) + frame(PING, b"x") + frame(CONTINUATION, text[9:])
    replies = []
    for start in range(0, len(sent), step):
        replies += connection.receive(sent[start : start + step])
    aapl = connection.topics["AAPL"]
    pong, *done = replies
    assert pong == pong_frame(b"x")
    assert done == [
        Ack("subscribe", ["AAPL"]),
        StartUpdates([aapl]),
        SendQuotes([aapl]),
    ]


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (frame(BINARY, b"x"), Close.BINARY),
        (frame(TEXT, b"\xff"), Close.INVALID_UTF8),
        (frame(TEXT, b"x" * 20_000), Close.TOO_BIG),
        (frame(TEXT, b"{}", mask=False), Close.PROTOCOL_ERROR),
        (frame(TEXT | 0x40, b"x"), Close.PROTOCOL_ERROR),
    ],
)
def test_violation_fails_the_connection(connection, sent, reason):
    """The reason is the only reply, and nothing that comes later is decoded."""
    assert connection.receive(sent + command("ping")) == [reason]
    assert connection.protocol.phase is Phase.FAILED
    assert connection.receive(command("ping") + close(1000)) == []


def test_client_s_close_is_the_last_reply(connection):
    """Its code is told; what follows in the same bytes is not answered."""
    sent = command("ping") + close(1000) + command("ping") + frame(BINARY) + b"\xff\xff"
    pong, closed = connection.receive(sent)
    assert isinstance(pong, Pong)
    assert closed == ClientClosed(1000)
    assert connection.protocol.phase is Phase.CLOSED


def test_after_the_server_s_close_only_the_answer_counts(connection):
    """Commands that were under way are dropped; garbage ends the reading."""
    connection.protocol.close()
    assert connection.receive(command("ping") + frame(PING)) == []
    assert connection.receive(close(1001)) == [ClientClosed(1001)]
    other = Connection("AAPL")
    other.protocol.close()
    assert other.receive(b"\xff\xff\xff") == []
    assert other.protocol.phase is Phase.FAILED


def test_only_a_close_frame_does_not_wait_its_turn(connection):
    """Other frames are answered when the client has read the answers before."""
    frames = connection.protocol.receive(command("ping") + frame(PING) + close(1000))
    assert [waits_its_turn(each) for each in frames] == [True, True, False]
    assert not waits_its_turn(Close.PROTOCOL_ERROR)


def test_commands_that_come_too_fast_are_refused_then_closed(connection):
    """The burst is answered, then as many are refused as allowed; a second later one rate is free."""
    burst = RATE * BURST_SECONDS
    assert all(isinstance(connection.say("ping")[0], Pong) for _ in range(burst))
    (error,) = connection.say("ping", id=1)
    assert (error.code, error.message, error.id) == ("rate_limited", TOO_FAST, 1)
    connection.now += 1.0
    answers = [connection.say("ping")[0] for _ in range(RATE + 1)]
    assert [isinstance(each, Pong) for each in answers] == [True] * RATE + [False]
    flood = connection.receive(command("ping") * (REFUSALS_BEFORE_CLOSE + 10))
    assert [each.code for each in flood[:-1]] == ["rate_limited"] * (len(flood) - 1)
    assert flood[-1] is Close.FLOODING


@pytest.mark.parametrize("sent", [frame(PING), frame(PONG)])
def test_control_frames_count_as_commands(connection, sent):
    """Those that come too fast are not answered, and close the connection in the end."""
    replies = connection.receive(sent * (RATE * BURST_SECONDS + REFUSALS_BEFORE_CLOSE + 1))
    assert replies[-1] is Close.FLOODING
    assert len(replies) == 1 + (RATE * BURST_SECONDS if sent == frame(PING) else 0)


def test_bad_commands_are_refused_then_closed(connection):
    """Ten in a row are told what is wrong, the eleventh is the last."""
    replies = []
    for _ in range(12):
        replies += connection.receive(frame(TEXT, b"bad"))
        connection.now += 1.0
    assert [each.code for each in replies[:-1]] == ["bad_json"] * 11
    assert replies[-1] is Close.BAD_COMMANDS


def test_user_whose_budget_is_spent_is_refused():
    """Whatever this connection has left; a ping frame is answered all the same."""
    connection = Connection("AAPL", user_rate=0.5)
    connection.commands.add_debt("ann", 100)
    (error,) = connection.say("ping", id=1)
    assert (error.code, error.message, error.id) == ("rate_limited", USER_SPENT, 1)
    assert connection.receive(frame(PING, b"x")) == [pong_frame(b"x")]


def test_command_about_everything_is_charged_for_every_symbol():
    """The user's budget pays for the quotes that one short command brings."""
    connection = Connection(*(f"S{number}" for number in range(500)), user_rate=1.0)
    connection.directory.complete = True
    connection.say("subscribe", symbols=["*"])
    # A burst is five seconds' worth; the debt is as much again, on top of the command itself.
    assert connection.commands.wait("ann", 5.0) == pytest.approx(6.0)
