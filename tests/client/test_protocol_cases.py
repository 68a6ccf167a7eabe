"""The shared protocol cases, played to the core of the Python client in each form."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
import trio

from quotestream.answers import Answer, Answers
from quotestream.core import Core, Ending
from quotestream.credential import Credential
from quotestream.errors import BadMessage, CommandRefused
from quotestream.values import Bar, Quote
from server.quotes.position import parse_position
from server.quotes.view import Form
from server.reconnecting import refused_handshake

FOLDER = Path(__file__).parents[1] / "protocol_cases"

Case = dict[str, Any]

UNCOUNTED = {"ping", "auth"}
"""Commands that the cases do not count."""


def all_cases() -> Iterator[Any]:
    """Yield each case of each file in each of its forms."""
    for path in sorted(FOLDER.glob("*.json")):
        for case in json.loads(path.read_text())["cases"]:
            for form in case["forms"]:
                yield pytest.param(case, form, id=f"{path.stem}-{case['name']}-{form}")


class Runner:
    """Plays one case: it is the driver, the server and the application."""

    def __init__(self, case: Case, form: Form) -> None:
        connect = {"fields": (), "interval": None, **case["connect"]}
        self.core = Core(format=form, **connect)
        self.form = form
        self.now = 0.0
        self.tokens = 0
        self.credential = Credential(self._token if case.get("token") == "renewable" else "fixed")
        trio.run(self.credential.renew)
        self.wait = 0.0
        self.sent: list[dict[str, Any]] = []
        self.answers = Answers()
        self.calls: list[Answer] = []
        self.heard: dict[str, list[dict[str, Any]]] = {"bar": [], "bars_missed": [], "bars_end": []}

    def play(self, steps: list[dict[str, Any]]) -> None:
        for step in steps:
            [(name, value)] = step.items()
            getattr(self, f"do_{name}")(value)

    def do_open(self, wanted: dict[str, Any]) -> None:
        assert not self.core.connected, "the client is still connected"
        assert self.core.state in ("connecting", "waiting")
        self.now += self.wait
        self._request(wanted)
        self.core.opened(f"quotestream.v1.{self.form}", self.now)
        self._collect()

    def _request(self, wanted: dict[str, Any]) -> None:
        query = parse_qs(urlsplit(self.core.target("ws://server/ws/quotes")).query)
        symbols, fields = (query.get(name, [""])[0].split(",") for name in ("symbols", "fields"))
        assert len(symbols) == len(set(symbols))
        assert set(symbols) == set(wanted["symbols"])
        assert set(fields) == set(wanted.get("fields", [""]))
        assert query.get("interval", [None])[0] == wanted.get("interval")
        resume = query.get("resume", [None])[0]
        position = None if resume is None else parse_position(resume)._asdict()
        assert position == wanted["resume"]

    def do_server(self, messages: Any) -> None:
        if isinstance(messages, dict):
            messages = messages["json" if self.form == "json" else "compact"]
        for message in messages:
            binary = self.form == "msgpack"
            self._receive(msgspec.msgpack.encode(message) if binary else json.dumps(message))

    def do_server_text(self, text: str) -> None:
        self._receive(text)

    def do_server_hex(self, digits: str) -> None:
        self._receive(bytes.fromhex(digits))

    def do_close(self, how: dict[str, Any]) -> None:
        self._end(self.core.closed(how["code"], how.get("reason", "")))

    def do_refuse(self, how: dict[str, Any]) -> None:
        self.now += self.wait
        self.core.target("ws://server/ws/quotes")
        headers = [(name.encode(), value.encode()) for name, value in how["headers"].items()]
        body = json.dumps(how["body"]).encode()
        self._end(self.core.failed(refused_handshake(how["status"], headers, body)))

    def do_call(self, call: dict[str, Any]) -> None:
        arguments = {**call}
        answer = self.answers.begin(trio.Event(), call.get("symbols", ()))
        self.calls.append(answer)
        getattr(self.core, arguments.pop("method"))(**arguments, id=answer.id)
        self._collect()

    def do_expect(self, expected: dict[str, Any]) -> None:
        for name, value in expected.items():
            getattr(self, f"expect_{name}", self._expect(name))(value)

    def _expect(self, name: str) -> Callable[[Any], None]:
        def same(value: Any) -> None:
            assert getattr(self.core, name) == value, name

        return same

    def expect_quotes(self, quotes: dict[str, Any]) -> None:
        held = self.core.document.quotes
        assert held.keys() == quotes.keys()
        for symbol, values in quotes.items():
            shown = dict.fromkeys(Quote.__struct_fields__) | {"symbol": symbol}
            assert {name: held[symbol].get(name) for name in values} == values
            # As applications get it: typed, unknown fields left out.
            typed = msgspec.convert({"symbol": symbol} | held[symbol], Quote)
            assert typed == msgspec.convert(shown | values, Quote)

    def expect_symbols(self, symbols: list[str]) -> None:
        assert sorted(self.core.document.quotes) == symbols

    def expect_versions(self, versions: dict[str, int]) -> None:
        assert self.core.document.versions == versions

    def expect_epoch(self, epoch: str) -> None:
        assert self.core.document.epoch == epoch

    def expect_missed(self, symbols: list[str]) -> None:
        assert sorted(self.core.document.missed) == sorted(symbols)

    def expect_markets(self, markets: dict[str, Any]) -> None:
        held = {symbol: market._asdict() for symbol, market in self.core.markets.items()}
        assert held == markets

    def expect_sent(self, commands: list[dict[str, Any]]) -> None:
        sent, self.sent = self.sent, []
        assert [_comparable(each) for each in sent] == [_comparable(each) for each in commands]

    def expect_errors(self, errors: list[dict[str, Any]]) -> None:
        held = [{"code": each.code, "symbols": [*each.symbols]} for each in self.core.errors]
        assert held == errors

    def expect_refused(self, refusals: list[dict[str, Any]]) -> None:
        held = []
        for number, answer in enumerate(self.calls, 1):
            try:
                answer.check()
            except CommandRefused as refused:
                symbols = sorted(refused.symbols)
                held.append({"call": number, "code": refused.code, "symbols": symbols})
        assert held == [_comparable(each) for each in refusals]

    def expect_bars(self, bars: list[dict[str, Any]]) -> None:
        got = [
            msgspec.to_builtins(
                msgspec.convert({**each["bar"], **_without(each, "type", "bar")}, Bar)
            )
            for each in self._heard("bar")
        ]
        assert got == [{**each["bar"], **_without(each, "bar")} for each in bars]

    def expect_bars_missed(self, messages: list[dict[str, Any]]) -> None:
        assert [_without(each, "type") for each in self._heard("bars_missed")] == messages

    def expect_bars_end(self, messages: list[dict[str, Any]]) -> None:
        assert [_without(each, "type") for each in self._heard("bars_end")] == messages

    def expect_wait(self, wait: dict[str, float]) -> None:
        assert self.wait >= wait["least"]

    def expect_tokens(self, tokens: int) -> None:
        assert self.tokens == tokens

    def _heard(self, kind: str) -> list[dict[str, Any]]:
        heard, self.heard[kind] = self.heard[kind], []
        return heard

    def _token(self) -> str:
        self.tokens += 1
        return f"token{self.tokens}"

    def _receive(self, data: str | bytes) -> None:
        try:
            for message in self.core.receive(data, self.now):
                if message["type"] in ("ack", "error"):
                    is_error = message["type"] == "error"
                    self.answers.take(message, self.core.errors[-1] if is_error else None)
                if message["type"] in self.heard:
                    self.heard[message["type"]].append(message)
            self.credential.accepted()
            self._collect()
        except BadMessage as bad:
            self._end(self.core.broken(str(bad)))

    def _end(self, ending: Ending) -> None:
        if ending.refusal and not (ending.renewable and trio.run(self.credential.renew)):
            self.core.refuse(ending.refusal)
        else:
            self.wait = self.core.wait(ending, self.now)

    def _collect(self) -> None:
        for frame in self.core.outgoing():
            decoder = msgspec.msgpack if isinstance(frame, bytes) else msgspec.json
            assert isinstance(frame, bytes) == (self.form == "msgpack")
            command = decoder.decode(frame)
            if command["action"] not in UNCOUNTED:
                self.sent.append(command)


def _without(message: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in message.items() if name not in names}


def _comparable(command: dict[str, Any]) -> dict[str, Any]:
    lists = {name: sorted(value) for name, value in command.items() if isinstance(value, list)}
    return _without(command, "id") | lists


@pytest.mark.parametrize(("case", "form"), [*all_cases()])
def test_case(case: Case, form: Form) -> None:
    """The core holds and sends what the case says."""
    Runner(case, form).play(case["steps"])
