"""`quotes.js` passes the protocol cases that drive the Python client, too."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.browser_client.node import run

CASES = Path(__file__).parent.parent / "protocol_cases"

NOW_US = 1_764_012_345_678_000
"""The time of the runner's clock, in microseconds."""


def packed(value: Any, form: str) -> dict[str, str]:
    """Return a message as the server sends it in this form."""
    if form == "msgpack":
        return {"hex": msgspec.msgpack.encode(value).hex()}
    return {"text": json.dumps(value)}


def frames(step: dict[str, Any], form: str) -> dict[str, Any]:
    """Return a step with the bytes of the form in place of messages."""
    [(kind, value)] = step.items()
    if kind == "server":
        messages = (
            value if isinstance(value, list) else value["json" if form == "json" else "compact"]
        )
        return {"server": [packed(message, form) for message in messages]}
    if kind == "server_text":
        return {"server": [{"text": value}]}
    if kind == "server_hex":
        return {"server": [{"hex": value}]}
    return step


def collect() -> list[tuple[str, dict[str, Any]]]:
    """Return a name and the runner's input for each case and form."""
    cases = []
    for file in sorted(CASES.glob("*.json")):
        for case in json.loads(file.read_text())["cases"]:
            if case.get("http"):
                continue
            for form in case["forms"]:
                steps = [frames(step, form) for step in case["steps"]]
                pong = packed({"type": "pong", "ts": NOW_US}, form)
                cases.append(
                    (
                        f"{file.stem}-{case['name']}-{form}",
                        {**case, "form": form, "steps": steps, "pong": pong},
                    )
                )
    return cases


ALL = collect()


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """Run all cases in one process of Node."""
    printed = run("cases.mjs", json.dumps([case for _, case in ALL]))
    return dict(zip([name for name, _ in ALL], json.loads(printed), strict=True))


def test_there_are_cases():
    """The folder of the cases was found."""
    assert len(ALL) > 200


@pytest.mark.parametrize(("name", "case"), ALL, ids=[name for name, _ in ALL])
def test_case(name, case, results):
    """The client asks for, holds and sends what the case expects."""
    result = results[name]
    observed = iter(result["observed"])
    for number, step in enumerate(case["steps"]):
        [(kind, wanted)] = step.items()
        if kind in ("open", "expect"):
            seen = next(observed, None)
            assert seen is not None, (number, result.get("error"))
            (check_request if kind == "open" else check_state)(wanted, seen, number)
    assert "error" not in result, result["error"]


def check_request(wanted: dict[str, Any], seen: dict[str, Any], number: int) -> None:
    assert sorted(seen["symbols"]) == sorted(wanted["symbols"]), number
    assert sorted(seen["fields"] or ()) == sorted(wanted.get("fields") or ()), number
    assert seen["interval"] == wanted.get("interval"), number
    resume = wanted.get("resume")
    if resume is None:
        assert seen["resume"] is None, number
    else:
        epoch, held = seen["resume"]
        versions = {
            symbol: int(version)
            for symbol, _, version in (part.rpartition("=") for part in held.split(","))
        }
        assert (epoch, versions) == (resume["epoch"], resume["versions"]), number


def check_state(wanted: dict[str, Any], seen: dict[str, Any], number: int) -> None:
    for field, value in wanted.items():
        assert shown(field, seen, wanted) == expected(field, value), (number, field)


def expected(field: str, value: Any) -> Any:
    """Return what is expected of a field, in an order that does not matter."""
    if field == "errors":
        return refusals(value)
    if field in ("sent", "refused"):
        return ordered(value)
    return sorted(value) if field in ("missed", "symbols") else value


def shown(field: str, seen: dict[str, Any], wanted: dict[str, Any]) -> Any:
    """Return what the client shows, in the words of the expectation."""
    if field in TRANSLATED:
        return TRANSLATED[field](seen)
    if field in COMPARED:
        return COMPARED[field](seen[field], wanted[field], seen)
    return seen[field]


def state(seen: dict[str, Any]) -> str:
    if seen["status"] == "closed" and seen["state"] == "stale":
        return "closed"
    shown: str = {"connecting": "waiting", "closed": "refused"}.get(seen["state"], seen["state"])
    return shown


def markets(seen: dict[str, Any]) -> dict[str, Any]:
    return {
        symbol: {name: status[name] for name in ("status", "reason")}
        for symbol, status in seen["markets"].items()
    }


def refusals(errors: list[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    return [(each["code"], each.get("symbols", [])) for each in errors]


def ordered(commands: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return commands without their ids, and their lists in order."""
    return [
        {
            key: sorted(value) if isinstance(value, list) else value
            for key, value in command.items()
            if key != "id"
        }
        for command in commands
    ]


def quotes(shown: dict[str, Any], wanted: dict[str, Any], seen: dict[str, Any]) -> dict[str, Any]:
    """Return the quotes, with the expected values of those that are missed or the same. A field that a
    quote does not have may be null.
    """
    same = {
        symbol
        for symbol, quote in shown.items()
        if all(quote.get(name) == value for name, value in wanted.get(symbol, {}).items())
    }
    fine = (same | set(seen["missed"])) & wanted.keys()
    return {symbol: wanted[symbol] if symbol in fine else shown[symbol] for symbol in shown}


def bars(shown: list[dict[str, Any]], wanted: list[dict[str, Any]], _: object) -> list[Any]:
    """Return the bars, without further fields."""
    return [
        {**each, "bar": {name: each["bar"].get(name) for name in bar["bar"]}}
        for each, bar in zip(shown, wanted, strict=True)
    ]


TRANSLATED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "state": state,
    "markets": markets,
    "symbols": lambda seen: sorted(seen["quotes"]),
    "missed": lambda seen: sorted(seen["missed"]),
    "errors": lambda seen: refusals(seen["errors"]),
    "sent": lambda seen: ordered(seen["sent"]),
    "refused": lambda seen: ordered(sorted(seen["refused"], key=lambda each: each["call"])),
}
"""What a client shows, by the field of an expectation."""

COMPARED: dict[str, Callable[[Any, Any, dict[str, Any]], Any]] = {
    "quotes": quotes,
    "bars": bars,
    "wait": lambda wait, wanted, _: wanted if wait >= wanted["least"] else wait,
}
"""Fields of which the expectation leaves something open."""
