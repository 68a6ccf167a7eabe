"""Odd bodies and headers of `POST /prices`: each comes back with the right code, by line."""

import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection

import pytest
from websockets.sync.client import connect

from tests.gateway.wire import refusal
from tests.processes import TIMEOUT, ServerProcess
from tests.publisher import post, publisher_token

GOOD = b'{"symbol":"AAPL","price":175.92,"size":1}'
MIB = 2**20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Start a server for publishers."""
    with ServerProcess(tmp_path_factory.mktemp("odd"), FEED="push") as server:
        yield server


def padded(size: int) -> bytes:
    """Return a good object in a body of that size, which may be up to 1 MiB."""
    return GOOD + b" " * (size - len(GOOD))


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        *[(f'"price":{each}', "bad_price") for each in (
            "-0", "-0.0", "1e-400", "5e-324", '"175.92"', "true", "null", "[1]",
            "{}", "123456789012345678901234567890", "9" * 400, "1e14",
        )],
        *[(f'"price":{each}', "bad_json") for each in (
            "1e400", "-1e400", "NaN", "Infinity", "01", "1.", ".5", "+1", "0x10", "1_000", "",
        )],
        *[(f'"price":5,"size":{each}', "bad_size") for each in (
            "true", '"1"', "-1", "0.5", "123456789012345678901234567890",
        )],
        *[(f'"price":5,"ts":{each}', "bad_time") for each in (
            "-1", "0", "true", "1764012345678901.0", '"2026-11-26T09:30:00"',
            '"2026-02-30T00:00:00Z"', "123456789012345678901234567890",
        )],
        ('"price":5,"ts":"9999-12-31T23:59:59Z"', "future"),
        *[(f'"price":5,"seq":{each}', "bad_json") for each in (
            "1.0", "1.5", "-1", "9007199254740992", "123456789012345678901234567890", "true", "1e400",
        )],
        *[(f'"price":5,"id":{each}', "bad_json") for each in (
            "1.5", "true", '""', '"\\ud800"', "12345678901234567890123",
        )],
        ('"price":5,"x":' + "[" * 1500 + "]" * 1500, "bad_json"),
        ('"price":5,"x":"' + "x" * 4096 + '"', "too_large"),
        ('"price":5,"kind":"TRADE"', "bad_json"),
        ('"price":5,"kind":null', "bad_json"),
        ('"price":5,"id":"\udcff"', "bad_json"),
    ],
)  # a table # fmt: skip
def test_odd_field_is_named_by_line(server: ServerProcess, fields: str, code: str) -> None:
    """The good lines around it count, behind a BOM, between empty lines and with CRLF."""
    odd = b'{"symbol":"AAPL",%s}' % fields.encode(errors="surrogateescape")
    answer = post(server, b"\xef\xbb\xbf" + b"\r\n\r\n \t\r\n".join([GOOD, odd, GOOD]) + b"\r\n")
    assert answer.counts == (2, 0, 0, 0, [code])
    assert answer.body["rejected"][0]["line"] == 4
    if code != "bad_json":
        in_array = post(server, b"[%s,%s,%s]" % (GOOD, odd, GOOD))
        assert in_array.counts == (2, 0, 0, 0, [code])
        assert in_array.body["rejected"][0]["line"] == 2


@pytest.mark.parametrize(
    ("body", "accepted", "lines"),
    [
        (b"", 0, []),
        (b"\n \r\n\n", 0, []),
        (b"[]", 0, []),
        (b"\xef\xbb\xbf[" + GOOD + b"]\r\n", 1, []),
        (b'{"symbol":"AAPL","price":-1,"price":5,"price":6}', 1, []),
        (b"[1,null,[],{}," + GOOD + b"]", 1, [1, 2, 3, 4]),
        (b"[" + GOOD + b",]", 0, [1]),
        (b"[" + GOOD + b"] x", 0, [1]),
        (b"[" * 100_000, 0, [1]),
        (GOOD + GOOD + b"\n" + GOOD, 1, [1]),
        (GOOD + b"\n\xef\xbb\xbf" + GOOD, 1, [2]),
        ("\u2028".encode().join([GOOD, GOOD]), 0, [1]),
        (GOOD.decode().encode("utf-16"), 0, [1]),
    ],
)
def test_body_is_lines_or_one_array(
    server: ServerProcess, body: bytes, accepted: int, lines: list[int]
) -> None:
    """The last of equal keys counts, as JSON readers have it."""
    answer = post(server, body)
    assert (answer.status, answer.body["accepted"]) == (200, accepted)
    assert [each["line"] for each in answer.body["rejected"]] == lines
    assert {each["code"] for each in answer.body["rejected"]} <= {"bad_json"}


@pytest.mark.parametrize(
    ("body", "encoding", "status", "code"),
    [
        (padded(MIB + 1), "identity", 413, "too_large"),
        (gzip.compress(b"\n" * 200 * MIB, 1), "gzip", 413, "too_large"),
        (gzip.compress(padded(MIB + 1)), "gzip", 413, "too_large"),
        (gzip.compress(GOOD)[:-3], "gzip", 400, "bad_request"),
        (gzip.compress(GOOD)[:-8] + b"wrong...", "gzip", 400, "bad_request"),
        (gzip.compress(GOOD) + b"rest", "gzip", 400, "bad_request"),
        (gzip.compress(b"") * 2000, "gzip", 400, "bad_request"),
        (GOOD, "gzip", 400, "bad_request"),
        (GOOD, "br", 415, "unsupported_encoding"),
        (zlib.compress(GOOD), "deflate", 415, "unsupported_encoding"),
        (gzip.compress(gzip.compress(GOOD)), "gzip, gzip", 415, "unsupported_encoding"),
    ],
)
def test_body_that_cannot_be_read_is_refused_as_a_whole(
    server: ServerProcess, body: bytes, encoding: str, status: int, code: str
) -> None:
    before = server.ask("/quotes?symbols=AAPL")
    answer = post(server, body, Content_Encoding=encoding)
    assert (answer.status, answer.code) == (status, code)
    assert server.ask("/quotes?symbols=AAPL") == before


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "image/png", ";;;", "application/json; charset=x"]
)
def test_content_type_does_not_matter(server: ServerProcess, kind: str) -> None:
    """curl sends a form's by itself."""
    assert post(server, GOOD, Content_Type=kind).counts[0] == 1


@pytest.mark.parametrize("header", ["Source", "Source_Epoch", "Idempotency_Key"])
def test_names_are_printable_and_short(server: ServerProcess, header: str) -> None:
    """Up to 64 characters of ASCII. Otherwise the whole batch is refused."""
    for name in ("x" * 64, "a b", '"', "{}", "a,b", "..", "<script>", "%s\\n"):
        assert post(server, GOOD, **{header: name}).counts[:2] in ((1, 0), (0, 1))
    for name in ("", " ", "x" * 65, "x" * 7000, "\xe9", "a\tb"):
        refused = post(server, GOOD, **{header: name})
        assert (refused.status, refused.code) == (400, "bad_request")
        assert header.replace("_", "-") in json.dumps(refused.body)


@pytest.mark.parametrize(
    "name", ["Source", "Source-Epoch", "Idempotency-Key", "Content-Encoding", "Authorization"]
)
def test_header_that_comes_twice_is_refused_by_name(server: ServerProcess, name: str) -> None:
    """Also with the same value. The server would have to guess which one is meant."""
    token = f"Bearer {publisher_token()}"
    value = {"Content-Encoding": "identity", "Authorization": token}.get(name, "sip")
    sent = [("Authorization", token), (name, value), (name, value)]
    before = server.ask("/quotes?symbols=AAPL")
    connection = HTTPConnection(*server.http_address, timeout=TIMEOUT)
    with closing(connection):
        connection.putrequest("POST", "/prices")
        for header, given in sent[name == "Authorization" :]:
            connection.putheader(header, given)
        connection.putheader("Content-Length", str(len(GOOD)))
        connection.endheaders(GOOD)
        response = connection.getresponse()
        error = json.loads(response.read())["error"]
    assert (response.status, error["code"]) == (400, "bad_request")
    assert name in error["message"]
    assert server.ask("/quotes?symbols=AAPL") == before


@pytest.mark.parametrize("name", ["source", "source_epoch"])
def test_name_that_comes_twice_is_refused_before_the_upgrade(
    server: ServerProcess, name: str
) -> None:
    """As a header and as a parameter. A header in front of another parameter is not twice."""
    url = f"{server.quotes_url.replace('/ws/quotes', '/ws/prices')}?token={publisher_token()}"
    header = name.replace("_", "-")
    for refused, headers in (
        (f"{url}&{name}=sip&{name}=sip", []),
        (url, [(header, "sip"), (header, "iex")]),
    ):
        answer = refusal(refused, additional_headers=headers)
        assert answer.verdict == (400, "bad_request")
        assert header in answer.body.decode()
    with connect(f"{url}&{name}=sip", additional_headers={header: "iex"}):
        pass
