"""The operators' actions: a file of instruments, a delisting, a test price, and their audit lines."""

import pytest

from server.ops.http_request import MAX_FILE
from server.ops.reference import MAX_ROWS
from tests.gateway.wire import Client
from tests.ops.as_operator import ask

FILE = b"symbol;name;price\nNEWA;New A;1,25\nNEWB;New B;\nBAD;;3\n"

MANY_ROWS = b"symbol,name\nA,B\n" + b"x\n" * MAX_ROWS


@pytest.mark.parametrize("price", ["nan", "inf", "-inf", "1e400", "1,5", ""])
def test_price_is_a_finite_number(pushed, price):
    """JSON, and so the log, has no other numbers."""
    status, body = ask(pushed, "POST", f"/ops/prices?price={price}")
    assert (status, body["error"]["code"]) == (400, "bad_request")
    assert body["error"]["message"].startswith("price: ")


def test_file_is_tried_then_imported_then_delisted(pushed):
    """A dry run changes nothing. Bad rows are told, and stop an import that does not skip them."""
    status, report = ask(pushed, "POST", "/ops/import?dry_run=true", FILE)
    assert status == 200
    assert (report["dry_run"], report["listed"], report["without_price"]) == (True, 2, 1)
    assert report["sample"][0] == {"symbol": "NEWA", "name": "New A", "price": 1.25}
    assert (report["bad_rows"], report["problems"][0]["line"]) == (1, 4)
    assert any("';'" in each for each in report["assumed"])
    assert pushed.ask("/instruments/NEWA")[0] == 404

    status, body = ask(pushed, "POST", "/ops/import", FILE)
    assert (status, body["error"]["code"]) == (400, "bad_file")
    assert "line 4" in body["error"]["message"]
    assert pushed.ask("/instruments/NEWA")[0] == 404

    status, report = ask(pushed, "POST", "/ops/import?skip_bad=true", FILE)
    assert (status, report["dry_run"], report["listed"]) == (200, False, 2)
    assert pushed.ask("/instruments/NEWA")[1]["base_price"] == 1.25
    found = ask(pushed, "GET", "/ops/instruments?query=NEWB")[1]
    assert (found[0]["symbol"], found[0]["last_quote"]) == ("NEWB", None)
    pushed.await_event("admin", action="import", user="olivia", count=2)

    assert ask(pushed, "DELETE", "/ops/instruments/newa")[0] == 200
    pushed.await_event("admin", action="delist", user="olivia")
    assert pushed.ask("/instruments/NEWA")[0] == 404
    status, body = ask(pushed, "DELETE", "/ops/instruments/NEWA")
    assert (status, body["error"]["code"]) == (404, "unknown_symbol")
    assert "NEWA" in body["error"]["message"]
    assert "GET /ops/instruments" in body["error"]["message"]


@pytest.mark.parametrize(
    ("body", "query", "status", "code"),
    [
        (b"", "", 400, "bad_file"),
        (b"symbol,name\n", "", 400, "bad_file"),
        (b"a,b\n1,2\n", "", 400, "bad_file"),
        (b"\x00\xff\xfe", "", 400, "bad_file"),
        (b"symbol,name\nA,B\n", "?map=nothing", 400, "bad_request"),
        (b"symbol,name\nA,B\n", "?dry_run=perhaps", 400, "bad_request"),
        (b"x" * (MAX_FILE + 1), "", 413, "too_large"),
        # Short rows and columns would take a hundred times their size in memory.
        pytest.param(MANY_ROWS, "?skip_bad=true", 400, "bad_file", id="bad rows"),
        pytest.param(b"symbol,name" + b",c" * 1000 + b"\n", "", 400, "bad_file", id="columns"),
    ],
)
def test_file_that_cannot_be_imported(pushed, body, query, status, code):
    """It is refused with one line, and nothing is listed."""
    found, answer = ask(pushed, "POST", f"/ops/import{query}", body)
    assert (found, answer["error"]["code"]) == (status, code)


def test_column_can_be_named(pushed):
    """`map` takes a column whose header is not known."""
    body = b"symbol,name,Fixing\nMAPPED,Mapped,7.5\n"
    path = "/ops/import?dry_run=true&map=price%3DFixing"
    assert ask(pushed, "POST", path, body)[1]["sample"][0]["price"] == 7.5


def test_test_price_reaches_subscribers(pushed):
    """It is published as any other price, for the symbol TEST if no other is named."""
    ask(pushed, "POST", "/ops/import", b"symbol,name,price\nTEST,Test,1\n")
    with Client(pushed, "TEST") as client:
        client.receive()
        status, answer = ask(pushed, "POST", "/ops/prices?price=2.5")
        assert (status, answer["accepted"], answer["rejected"]) == (200, 1, [])
        client.receive()
        assert client.quotes["TEST"]["current_price"] == 2.5
    pushed.await_event("admin", action="publish", user="olivia", price=2.5)


@pytest.mark.parametrize(
    ("method", "path", "body", "action", "outcome"),
    [
        ("POST", "/ops/prices?price=0", None, "publish", ("refused", "bad_price")),
        ("POST", "/ops/prices?symbol=NONE&price=1", None, "publish", ("refused", "unknown_symbol")),
        ("POST", "/ops/import", b"\x00", "import", ("refused", "bad_file")),
        ("POST", "/ops/import?map=x", FILE, "import", ("refused", "bad_request")),
        ("DELETE", "/ops/instruments/NONE", None, "delist", ("refused", "unknown_symbol")),
        ("POST", "/ops/clients/0-1/drain", None, "drain", ("refused", "unknown_client")),
        ("POST", "/ops/clients/0-1/disconnect", None, "disconnect", ("refused", "unknown_client")),
        ("POST", "/admin/market-data/cache/warm?symbols=AAPL", None, "warm", ("done", None)),
        (
            "POST",
            f"/admin/market-data/cache/warm?symbols={','.join(map(str, range(501)))}",
            None,
            "warm",
            ("refused", "too_many_symbols"),
        ),
        (
            "DELETE",
            f"/admin/market-data/cache/invalidate?symbols={','.join(map(str, range(501)))}",
            None,
            "invalidate",
            ("refused", "too_many_symbols"),
        ),
    ],
)
def test_log_says_what_became_of_an_action(pushed, method, path, body, action, outcome):
    """One line tells the outcome, and for a refusal the code and the problem that the operator got."""
    before = len(pushed.events("admin"))
    _, answer = ask(pushed, method, path, body)
    pushed.await_event("admin", before + 1)
    (line,) = pushed.events("admin")[before:]
    assert (line["action"], line["user"]) == (action, "olivia")
    assert (line["outcome"], line.get("code")) == outcome
    if "error" in answer:
        assert line["problem"] == answer["error"]["message"]
    elif outcome != ("done", None):
        assert line["problem"] == answer["rejected"][0]["message"]


def test_trial_of_a_file_is_not_an_action(pushed):
    """It changes nothing, so it leaves no line."""
    before = len(pushed.events("admin"))
    assert ask(pushed, "POST", "/ops/import?dry_run=true", b"\x00")[0] == 400
    assert ask(pushed, "DELETE", "/ops/instruments/NONE")[0] == 404
    pushed.await_event("admin", before + 1)
    assert [each["action"] for each in pushed.events("admin")[before:]] == ["delist"]
