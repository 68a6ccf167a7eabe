"""Commands about bars, over a session."""

import json
import re
from typing import Any

import pytest

from server.fanout.hub import Hub
from server.gateway.commands import NO_BARS_OF_ALL, Commands
from server.gateway.subscriptions import LookUp, Publish
from server.quotes.messages import ACTIONS, JSON_COMMANDS, BadCommand
from server.quotes.update import Trade
from tests.fanout.peer import instruments
from tests.frames import take_frame
from tests.gateway.harness import SessionHarness


class Client:
    """A session's client. `say` returns the messages that come at once."""

    def __init__(self, harness: SessionHarness) -> None:
        self.harness = harness

    async def say(self, command: dict[str, Any]) -> list[dict[str, Any]]:
        """Carry out a command and return what comes."""
        session = self.harness.session
        context = self.harness.gateway.services.context
        commands = Commands(context, "ann", session.subscriptions)
        for reply in commands.execute(JSON_COMMANDS.parse(json.dumps(command).encode())):
            if isinstance(reply, LookUp):
                names = reply.command.charged_symbols
                selection = await context.selector.resolve(names, "ann")
                for each in commands.subscribe(reply.command, selection):
                    session.carry_out(each)
            else:
                assert not isinstance(reply, Publish)
                session.carry_out(reply)
        self.harness.session.outbox.flush()
        received, messages = b"", []
        try:
            while data := self.harness.client.recv(65536):
                received += data
        except BlockingIOError:
            pass
        while frame := take_frame(received):
            _, payload, received = frame
            messages.append(json.loads(payload))
        return messages


@pytest.fixture
async def hub(nursery):
    hub = Hub(instruments("AAPL", "MSFT", "BRK.B"))
    await nursery.start(hub.run)
    return hub


@pytest.fixture
async def client(hub):
    harness = SessionHarness(hub)
    harness.begin()
    yield Client(harness)
    harness.session.end()
    harness.sock.close()
    harness.client.close()


def bars(action: str, *symbols: str, timeframe: str = "1m", **more: Any) -> dict[str, Any]:
    """Return a command."""
    return {"action": action, "bars": list(symbols), "timeframe": timeframe, **more}


async def test_subscribe_and_unsubscribe(hub, client):
    """The acknowledgement comes first, then the present bar. Quotes are another subscription."""
    hub.topics["AAPL"].publish(Trade("AAPL", 101.0, 5, 1_764_012_345_678_901, 1))
    ack, bar = await client.say(bars("subscribe", "aapl", "MSFT", timeframe="5m", id=7))
    assert ack == {
        "type": "ack",
        "action": "subscribe",
        "symbols": ["AAPL", "MSFT"],
        "id": 7,
        "timeframe": "5m",
    }
    assert (bar["type"], bar["symbol"], bar["timeframe"]) == ("bar", "AAPL", "5m")
    assert bar["bar"]["t"] == "2025-11-24T19:25:00Z"
    assert client.harness.session.subscriptions.topics == {}
    assert await client.say(bars("unsubscribe", "AAPL", timeframe="5m")) == [
        {"type": "ack", "action": "unsubscribe", "symbols": ["AAPL"], "timeframe": "5m"}
    ]
    assert "AAPL" not in hub.bars
    assert "MSFT" in hub.bars


async def test_subscribing_twice(hub, client):
    """Is acknowledged, and changes nothing."""
    await client.say(bars("subscribe", "AAPL"))
    (ack,) = await client.say(bars("subscribe", "AAPL"))
    assert ack["symbols"] == ["AAPL"]
    assert len(client.harness.session.subscriptions.bars) == 1


async def test_errors(client):
    """Are those of subscriptions to quotes."""
    await client.say(bars("subscribe", "AAPL"))
    ack, error = await client.say(bars("subscribe", "MSFT", "NOPE"))
    assert (ack["symbols"], error["code"], error["symbols"]) == (
        ["MSFT"],
        "unknown_symbol",
        ["NOPE"],
    )
    (error,) = await client.say(bars("unsubscribe", "AAPL", timeframe="1h"))
    assert (error["code"], error["symbols"]) == ("not_subscribed", ["AAPL"])
    (error,) = await client.say({"action": "unsubscribe", "symbols": ["AAPL"]})
    assert error["code"] == "not_subscribed"
    (error,) = await client.say(bars("subscribe", "*"))
    assert (error["code"], error["message"]) == ("bad_command", NO_BARS_OF_ALL)
    (ack,) = await client.say(bars("unsubscribe", "*"))
    assert ack["symbols"] == ["AAPL", "MSFT"]
    (error,) = await client.say(bars("unsubscribe", "*"))
    assert error["code"] == "not_subscribed"


async def test_bars_count_for_the_limit(hub, client):
    """Each symbol and length counts as a symbol."""
    timeframes = ["1m", "5m", "15m", "30m", "1h", "4h", "1d", "1w"]
    for timeframe in timeframes:
        await client.say(bars("subscribe", "AAPL", timeframe=timeframe))
    await client.say({"action": "subscribe", "symbols": ["AAPL", "MSFT"]})
    assert client.harness.session.subscriptions.count == 10
    (error,) = await client.say(bars("subscribe", "MSFT"))
    assert error["code"] == "too_many_symbols"
    (error,) = await client.say({"action": "subscribe", "symbols": ["BRK.B"]})
    assert error["code"] == "too_many_symbols"
    hub.delist(["AAPL"])
    assert client.harness.session.subscriptions.bars == ()


async def test_the_end_of_a_session(hub, client):
    """Ends its subscriptions."""
    await client.say(bars("subscribe", "AAPL"))
    client.harness.session.end()
    assert "AAPL" not in hub.bars


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        (bars("subscribe", "AAPL", timeframe="7m"), "Invalid enum value '7m' - at `$.timeframe`"),
        ({"action": "subscribe", "bars": ["AAPL"]}, "Object missing required field `timeframe`"),
        ({"action": "subscribe", "timeframe": "1m"}, "Object missing required field `symbols`"),
        ({"action": "unsubscribe"}, "Object missing required field `symbols`"),
        (bars("subscribe"), "Expected `array` of length >= 1 - at `$.bars`"),
        (
            bars("subscribe", "AAPL", symbols=["AAPL"]),
            "`symbols` and `bars` need commands of their own",
        ),
    ],
)
def test_bad_commands(command, problem):
    """Say what is wrong."""
    assert command["action"] in ACTIONS
    with pytest.raises(BadCommand, match=re.escape(problem)) as caught:
        JSON_COMMANDS.parse(json.dumps(command).encode())
    assert caught.value.code == "bad_command"
