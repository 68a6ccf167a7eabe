"""The forms of a file of prices: JSON, one object a line or an array, and CSV."""

import io
import json
from typing import Any

import pytest

from server.client.published import BATCH, Entry, Object, Problem, read_batches, read_entries

TRADE = {"symbol": "AAPL", "price": 175.92, "size": 100}


@pytest.mark.parametrize(
    ("text", "objects"),
    [
        ("", []),
        ("\n \n", []),
        (
            '{"symbol":"A","price":1}\n\n{"symbol":"B","seq":2}\r\n',
            [(1, {"symbol": "A", "price": 1}, False), (3, {"symbol": "B", "seq": 2}, True)],
        ),
        (
            '\ufeff[{"symbol":"A"},\n {"symbol":"B"}]',
            [(1, {"symbol": "A"}, False), (2, {"symbol": "B"}, False)],
        ),
        (
            "Symbol,Price,Size,ID,Timestamp\nAAPL,175.92,100,7,2026-11-26T09:30:00Z\nMSFT,9,,,\n",
            [
                (2, TRADE | {"id": "7", "ts": "2026-11-26T09:30:00Z"}, False),
                (3, {"symbol": "MSFT", "price": 9}, False),
            ],
        ),
        (
            "timestamp_ms,symbol,price,size\n1511951400000,AAPL,175.92,100\n",
            [(2, {"ts": 1511951400000000} | TRADE, False)],
        ),
        ("symbol,price\nAAPL,dear\n", [(2, {"symbol": "AAPL", "price": "dear"}, False)]),
        ("symbol,timestamp_ms\nAAPL,²\n", [(2, {"symbol": "AAPL", "ts": "²"}, False)]),
        ("symbol,price\nA,nan\n", [(2, {"symbol": "A", "price": "nan"}, False)]),
        ('symbol,price\n"A,B",-37.63\n', [(2, {"symbol": "A,B", "price": -37.63}, False)]),
    ],
)
def test_file_is_read(text: str, objects: list[tuple[int, dict[str, Any], bool]]) -> None:
    found = []
    for line, content in read_entries(io.StringIO(text)):
        assert isinstance(content, Object)
        found.append((line, json.loads(content.text), content.numbered))
    assert found == objects


@pytest.mark.parametrize(
    ("header", "text", "ts"),
    [
        ("timestamp_s", "1511951400", 1511951400000000),
        ("timestamp_s", "1511951400.25", 1511951400250000),
        ("timestamp_s", "1511951400.1234569", 1511951400123456),
        ("timestamp_ms", "1511951400000.0", 1511951400000000),
        ("timestamp_ms", "1511951400000.5", 1511951400000500),
        ("timestamp_us", "1511951400000001", 1511951400000001),
        ("timestamp_ns", "1511951400000001999", 1511951400000001),
        ("timestamp_ns", "7", 0),
        ("timestamp_ms", "1.5e12", "1.5e12"),
        ("timestamp_ms", "-1", "-1"),
        ("timestamp_us", "2026-11-26T09:30:00Z", "2026-11-26T09:30:00Z"),
    ],
)
def test_time_is_never_left_out(header: str, text: str, ts: int | str) -> None:
    """Without it, the server would take the present time. It refuses what is not a time by its line."""
    [entry] = read_entries(io.StringIO(f"symbol,{header}\nA,{text}\n"))
    assert isinstance(entry.content, Object)
    assert json.loads(entry.content.text)["ts"] == ts


def test_numbers_pass_as_they_are_written():
    """No float rounds them: a price may have twelve decimals."""
    [entry] = read_entries(io.StringIO("symbol,price\nA,64000.123456789012\n"))
    assert entry.content == Object('{"symbol":"A","price":64000.123456789012}', numbered=False)


@pytest.mark.parametrize(
    ("text", "line", "code"),
    [
        ('{"symbol":"A"}\nnot json\n', 2, "bad_json"),
        ('{"symbol":"A"}\n[1]\n', 2, "bad_json"),
        ('{"symbol":"A"}\n{}\n', 2, "bad_json"),
        ('{"symbol":"' + "A" * 5000 + '"}\n', 1, "too_large"),
        ('[{"symbol":"A"},{"symbol":"' + "A" * 5000 + '"}]', 2, "too_large"),
        ('[{"symbol":"A"}', 1, "bad_json"),
        ('{"a":' + "[" * 2000, 1, "bad_json"),
        ("a,b\n1,2\n", 1, "bad_json"),
        ("symbol,price\nAAPL\n", 2, "bad_json"),
        ("symbol,price\nAAPL," + "1" * 200_000, 2, "bad_json"),
    ],
)
def test_what_cannot_be_read_is_named_by_its_line(text: str, line: int, code: str) -> None:
    wrong = [each for each in read_entries(io.StringIO(text)) if isinstance(each.content, Problem)]
    assert [(each.line, each.content[0]) for each in wrong] == [(line, code)]


@pytest.mark.parametrize(
    "text",
    [
        '{"symbol":"A","id":"té"}\n{"symbol":"A","id":"ok"}\n',
        '[{"symbol":"A","id":"té"},{"symbol":"A","id":"ok"}]',
        "symbol,id\nA,té\nA,ok\n",
    ],
)
def test_bytes_that_are_not_utf8_are_named(text: str) -> None:
    """With a replacement, two ids could become one, and the second trade would not count."""
    sent: list[list[Entry]] = []
    read_batches(io.BytesIO(text.encode("latin-1")), sent.append)
    [[bad, good]] = sent
    assert bad.content == Problem("bad_json", "not UTF-8")
    assert isinstance(good.content, Object)


def test_field_that_is_null_is_missing():
    """The server takes it so, and the object would count again if it were sent twice."""
    texts = [
        '{"symbol":"A","price":1,"seq":null,"id":null}',
        '{"kind":"status","symbol":"A"}',
        '{"symbol":"A","seq":0,"id":"a"}',
    ]
    found = [each.content for each in read_entries(texts)]
    assert [each[1:] for each in found] == [(False, False), (False, True), (True, True)]
    assert isinstance(found[0], Object)
    assert json.loads(found[0].add('"seq":1'))["seq"] == 1


class Pipe(io.BytesIO):
    """Gives one line at a time, as a program that prints prices does."""

    def read(self, _: int | None = -1) -> bytes:
        return self.readline()


def test_objects_are_sent_as_soon_as_a_pipe_has_them():
    sent: list[list[Entry]] = []
    read_batches(Pipe(b'{"symbol":"A"}\n{"symbol":"B"}\n'), sent.append)
    assert [[entry.line for entry in batch] for batch in sent] == [[1], [2]]


def test_objects_of_a_file_are_sent_together():
    sent: list[list[Entry]] = []
    read_batches(io.BytesIO(b'{"symbol":"A"}\n' * (BATCH + 1)), sent.append)
    assert [len(batch) for batch in sent] == [BATCH, 1]


def test_frames_stay_far_below_what_a_server_takes():
    sent: list[list[Entry]] = []
    line = b'{"symbol":"A","reason":"' + b"x" * 4000 + b'"}\n'
    read_batches(io.BytesIO(line * 300), sent.append)
    assert sum(len(batch) for batch in sent) == 300
    assert max(sum(len(entry.content[0]) for entry in batch) for batch in sent) < 2**20 / 2
