"""The forms of a file of prices: JSON, one object a line or an array, and CSV."""

import io

import pytest

from server.client.published import BATCH, Entry, read_batches, read_entries

TRADE = {"symbol": "AAPL", "price": 175.92, "size": 100}


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("", []),
        ("\n \n", []),
        (
            '{"symbol":"A","price":1}\n\n{"symbol":"B","price":2}\n',
            [Entry(1, {"symbol": "A", "price": 1}), Entry(3, {"symbol": "B", "price": 2})],
        ),
        (
            '\ufeff[{"symbol":"A"},\n {"symbol":"B"}]',
            [Entry(1, {"symbol": "A"}), Entry(2, {"symbol": "B"})],
        ),
        (
            "Symbol,Price,Size,ID,Timestamp\nAAPL,175.92,100,7,2026-11-26T09:30:00Z\nMSFT,9,,,\n",
            [
                Entry(2, TRADE | {"id": "7", "ts": "2026-11-26T09:30:00Z"}),
                Entry(3, {"symbol": "MSFT", "price": 9}),
            ],
        ),
        (
            "timestamp_ms,symbol,price,size\n1511951400000,AAPL,175.92,100\n",
            [Entry(2, {"ts": 1511951400000000} | TRADE)],
        ),
        ("symbol,price\nAAPL,dear\n", [Entry(2, {"symbol": "AAPL", "price": "dear"})]),
        ('symbol,price\n"A,B",-37.63\n', [Entry(2, {"symbol": "A,B", "price": -37.63})]),
    ],
)
def test_file_is_read(text: str, entries: list[Entry]) -> None:
    assert [*read_entries(io.StringIO(text))] == entries


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"symbol":"A"}\nnot json\n', 2),
        ('{"symbol":"A"}\n[1]\n', 2),
        ('[{"symbol":"A"}', 1),
        ('{"a":' + "[" * 100_000, 1),
        ("a,b\n1,2\n", 1),
        ("symbol,price\nAAPL\n", 2),
    ],
)
def test_what_cannot_be_read_is_named_by_its_line(text: str, line: int) -> None:
    wrong = [entry for entry in read_entries(io.StringIO(text)) if isinstance(entry.content, str)]
    assert [entry.line for entry in wrong] == [line]


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
