"""Mistakes of an application that uses `quotestream`: each gets an error that says what to do."""

import pickle
from collections.abc import Callable
from socket import gaierror
from typing import Any

import pytest

import quotestream
from server.reconnecting import unreachable
from tests.client.libraries import EACH, on_trio

NOWHERE = "ws://127.0.0.1:1"


@pytest.mark.parametrize(
    "url",
    [
        "", "127.0.0.1:8080", "ftp://host", "ws://", "ws://host:99999", "ws://host:0", "ws://[::1",
        "ws://a..b/", "ws://host/a b", "ws://host/\n", "ws://hóst/\u2028", f"ws://{'a' * 64}/",
        "ws://host/?token=canary", "ws://canary:canary@host", "ws://host/#canary",
        "ws:/host?token=canary",
    ],
)  # a table # fmt: skip
def test_bad_address_is_said_at_once(url):
    """Before anything connects, and without what may be a secret."""
    with pytest.raises(ValueError, match=r"^url ") as refused:
        quotestream.connect(url)
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"symbols": "AAPL"}, TypeError, r"symbols is a list such as \['AAPL'\]"),
        ({"symbols": [["AAPL"]]}, TypeError, r"symbols has \['AAPL'\], which is not a text"),
        ({"symbols": ["AAPL", None]}, TypeError, "symbols has None, which is not a text"),
        ({"symbols": ["AAPL,MSFT"]}, ValueError, "'AAPL,MSFT' is not one symbol"),
        ({"fields": ["bid", 5]}, TypeError, "fields has 5, which is not a text"),
        ({"fields": "bid"}, TypeError, r"fields is a list such as \['bid'\]"),
        ({"interval": "soon"}, ValueError, "'soon' is not a duration"),
        ({"interval": -1}, ValueError, "-1 is not a duration"),
        ({"interval": 10**400}, ValueError, "1000+ is not a duration"),
        ({"interval": True}, ValueError, "True is not a duration"),
        ({"token": b"x"}, TypeError, "token is neither a text nor a function"),
        ({"format": "xml"}, ValueError, "'xml' is not one of the forms json, compact, msgpack"),
        ({"token": "a b"}, ValueError, "a token is ASCII characters without spaces"),
    ],
)
def test_bad_argument_is_said_at_once(options: dict[str, Any], error, words):
    """`connect` raises it, not the block."""
    with pytest.raises(error, match=words):
        quotestream.connect(NOWHERE, **options)


def test_list_for_the_blocking_call_is_said_at_once():
    """`get` takes each symbol as an argument."""
    with pytest.raises(TypeError, match=r"symbols has \['AAPL'\]"):
        quotestream.get(["AAPL"], url=NOWHERE)  # type: ignore[arg-type]  # the mistake


def test_any_key_can_be_looked_for():
    """A mapping says of a key of another type that it does not have it."""
    quotes = quotestream.connect(NOWHERE)
    assert 5 not in quotes  # type: ignore[comparison-overlap]  # the mistake
    assert quotes.get(None) is None  # type: ignore[call-overload]  # the mistake
    with pytest.raises(KeyError):
        quotes[b"AAPL"]  # type: ignore[index]  # the mistake


def test_name_that_does_not_exist_is_said_in_words():
    """The reason has no number of the C library."""
    failed = unreachable("nowhere", gaierror(-2, "Name or service not known"))
    assert str(failed) == "cannot connect to nowhere: Name or service not known"


def test_short_interval_is_written_without_an_exponent():
    """A server does not read 1e-05."""
    quotes = quotestream.connect(NOWHERE, interval=1e-5)
    assert quotes._core.wanted.query(()) == "interval=0.00001"


@EACH
def test_client_that_was_not_entered_says_so(run):
    """Iterating and commands name the block that is missing."""

    async def story() -> None:
        quotes = quotestream.connect(NOWHERE)
        for call in (
            lambda: anext(quotes),
            lambda: quotes.subscribe(["AAPL"]),
            lambda: quotes.bars(["AAPL"]),
            lambda: quotes.until(lambda: False),
        ):
            with pytest.raises(quotestream.Misused, match="async with"):
                await call()
        assert quotes.state == "connecting"

    run(story)


@EACH
def test_client_serves_one_block(run):
    """After its block, a client cannot be entered again."""

    def fails() -> str:
        raise LookupError("no token today")

    async def story() -> None:
        quotes = quotestream.connect(NOWHERE, token=fails)
        for error in LookupError, quotestream.Misused:
            with pytest.raises(error):
                async with quotes:
                    raise AssertionError

    run(story)


@EACH
@pytest.mark.parametrize("token", [None, 5, b"x", "a b"])
def test_token_function_s_result_is_checked(run, token):
    """Another value than a text ends the client with a ValueError, which the state tells."""

    async def story() -> None:
        quotes = quotestream.connect(NOWHERE, token=lambda: token)
        with pytest.raises(ValueError, match="a token is"):
            async with quotes:
                raise AssertionError
        assert quotes.state == "ended"
        assert "a token is" in quotes.reason

    run(story)


def test_blocking_call_in_trio_says_what_to_do():
    """`get` would block trio, too."""

    async def story() -> None:
        with pytest.raises(quotestream.Misused, match="connect"):
            quotestream.get("AAPL")

    on_trio(story)


def test_client_outside_of_a_loop_says_what_to_do():
    """Neither trio nor asyncio runs, so `connect` names `get`."""
    entering = quotestream.connect(NOWHERE).__aenter__()
    with pytest.raises(quotestream.Misused, match="get"):
        entering.send(None)


ERRORS: list[Callable[[], quotestream.Error]] = [
    lambda: quotestream.Refused("unauthorized", "the token is not good"),
    lambda: quotestream.CommandRefused("rate_limited", "too many commands"),
    lambda: quotestream.CommandRefused("unknown_symbol", "no such symbol", {"X": "none", "Y": "?"}),
    lambda: quotestream.Ended("over"),
]


@pytest.mark.parametrize("make", ERRORS)
def test_errors_can_be_sent_to_another_process(make):
    """Pickling keeps the text, the code and the symbols."""
    error = make()
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


def test_error_of_many_symbols_is_one_short_line():
    """Ten are named, and all are in `symbols`. Each reason stands before its own."""
    reasons = dict.fromkeys([f"S{number}" for number in range(500)], "no such symbol")
    error = quotestream.CommandRefused("unknown_symbol", "no such symbol", reasons | {"T": "later"})
    assert str(error).endswith("S8, S9 and 490 more; later: T")
    assert len(error.symbols) == 501
