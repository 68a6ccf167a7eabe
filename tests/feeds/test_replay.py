"""Replays of recorded days: at their own or full speed, with good and bad files."""

import gzip
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
import trio

from server.feeds.replay import BLOCK_ROWS, Played, Replay, ReplayError
from server.quotes.instrument import UNLISTED, Instrument
from server.quotes.traded import traded
from server.quotes.update import Book, Change, DayRange, FeedPosition, TopOfBook, Trade

HEADER = "timestamp_ms,symbol,price,size"

NOTHING = Played()

GOOD = ["1000,AAPL,175.50,100", "1500,msft,60.10,200", "4000,AAPL,175.92,300"]

TRADES = [
    ("AAPL", 175.5, 100, 1_000_000),
    ("MSFT", 60.1, 200, 1_500_000),
    ("AAPL", 175.92, 300, 4_000_000),
]

BAD_ROWS = {
    "empty line": "",
    "too few fields": "1000,AAPL,1.0",
    "too many fields": "1000,AAPL,1.0,1,1",
    "negative price": "1000,AAPL,-1.0,1",
    "no price": "1000,AAPL,0,1",
    "nan": "1000,AAPL,nan,1",
    "price of a galaxy": "1000,AAPL,1e308,1",
    "price under the tick": "1000,AAPL,0.00004,1",
    "infinite price": "1000,AAPL,inf,1",
    "text for a price": "1000,AAPL,cheap,1",
    "slip of the keyboard": "1000,AAPL,1_75,1",
    "slip in a size": "1000,AAPL,1.0,1_0",
    "text for a time": "noon,AAPL,1.0,1",
    "time before 1970": "-1,AAPL,1.0,1",
    "time beyond all": "999999999999999999,AAPL,1.0,1",
    "fraction of a satoshi": "1000,AAPL,1.0,0.000000001",
    "negative size": "1000,AAPL,1.0,-1",
    "impossible size": f"1000,AAPL,1.0,{10**13}",
    "no symbol": "1000, ,1.0,1",
    "endless symbol": f"1000,{'A' * 51},1.0,1",
    "all symbols": "1000,*,1.0,1",
    "unprintable": "1000,A\x00B,1.0,1",
    "a quote left open": '"1000,AAPL,1.0,1',
    "quoted fields": '1000,"AAPL",1.0,1',
    "endless number": f"{'1' * 5000},AAPL,1.0,1",
    "endless field": f"1000,{'A' * 200_000},1.0,1",
}


def write(path: Path, lines: list[str], header: str = HEADER, newline: str = "\n") -> Path:
    """Write a file of `lines`, compressed if its name ends with .gz."""
    text = newline.join([header, *lines, ""]).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def seen(trade: Trade) -> tuple[str, float, float, int]:
    """Return the file's fields of a trade."""
    return trade.symbol, trade.price, trade.size, trade.time_us


async def replay_all(
    path: Path, speed: float = 0, played: Played = NOTHING
) -> tuple[list[tuple[float, Trade]], Replay]:
    """Return all trades with their moments, and the replay."""
    replay = Replay(path, speed, loop=False)
    send, receive = trio.open_memory_channel[Any](0)
    start = trio.current_time()

    async def run() -> None:
        async with send:
            await replay.run(send, played=played)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        moments = [(trio.current_time() - start, trade) async for trade in receive]
    return moments, replay


@pytest.mark.parametrize("name", ["day.csv", "day.csv.gz"])
@pytest.mark.parametrize(("bom", "newline"), [("", "\n"), ("\ufeff", "\r\n")])
async def test_every_trade_comes_in_order(tmp_path, name, bom, newline):
    """Plain and compressed files, with and without byte order mark, give all trades in order."""
    path = write(tmp_path / name, GOOD, bom + HEADER, newline)
    moments, replay = await replay_all(path)
    assert [seen(trade) for _, trade in moments] == TRADES
    assert replay.bad_rows == 0


FIRST = 1000
"""The number of a file's first row in these tests."""


@pytest.mark.parametrize("times", [(1000, 1500, 2000, 2500), (4000, 1000, 1000, 0)])
@pytest.mark.parametrize(
    ("newest", "sent"),
    [
        ({}, [0, 1, 2, 3]),
        ({"A": FIRST + 2}, [1, 2, 3]),
        ({"A": FIRST + 2, "B": FIRST + 3}, [2, 3]),
        ({"A": FIRST + 4, "B": 0}, [1, 3]),
        ({"A": FIRST + 4, "B": FIRST + 5}, []),
        ({"A": FIRST - 1, "B": FIRST - 1}, [0, 1, 2, 3]),
    ],
)
async def test_replay_sends_the_rows_that_each_symbol_lacks(tmp_path, times, newest, sent):
    """Each trade has its row's number. A replay sends the rows that were not played before, symbol by
    symbol, whatever the rows' times are.
    """
    rows = [f"{time},{'AB'[n % 2]},{n + 1},1" for n, time in enumerate(times)]
    played = Played(FeedPosition(0, FIRST), lambda symbol: newest.get(symbol, 0), FIRST + 5)
    moments, _ = await replay_all(write(tmp_path / "day.csv", rows), played=played)
    assert [trade.row for _, trade in moments] == [FIRST + 2 + number for number in sent]
    assert [trade.price for _, trade in moments] == [number + 1 for number in sent]


async def test_late_rows_come_at_once(tmp_path, autojump_clock):
    """Rows before the last one that was played come without a pause, the others at intervals."""
    rows = ["0,A,1,1", "5000,A,2,1", "9000,B,3,1", "9000,A,4,1", "11000,A,5,1"]
    played = Played(FeedPosition(0, FIRST), {"A": 0, "B": FIRST + 4}.__getitem__, FIRST + 4)
    moments, _ = await replay_all(write(tmp_path / "day.csv", rows), 1, played)
    assert [trade.price for _, trade in moments] == [1, 2, 4, 5]
    assert [moment for moment, _ in moments] == pytest.approx([0, 0, 0, 2], abs=1e-6)


def test_content_identifies_a_file(tmp_path):
    """A compressed copy is the same file. A file with another row is another one."""
    files = [write(tmp_path / "a.csv", GOOD), write(tmp_path / "b.csv.gz", GOOD)]
    other = write(tmp_path / "c.csv", [*GOOD[:-1], "4000,AAPL,175.93,300"])
    one, same, another = (Replay(each, 1, loop=False).file for each in [*files, other])
    assert one == same != another


@pytest.mark.parametrize("speed", [0.5, 1, 100])
async def test_trades_keep_their_distances(tmp_path, autojump_clock, speed):
    """Trades keep their intervals, divided by the speed. A trade out of order comes at once."""
    path = write(tmp_path / "day.csv", [*GOOD, "2000,AAPL,1.0,1"])
    moments, _ = await replay_all(path, speed)
    expected = [0, 0.5 / speed, 3 / speed, 3 / speed]
    assert [moment for moment, _ in moments] == pytest.approx(expected, abs=1e-6)


async def test_full_speed_is_held_back_and_loses_nothing(tmp_path):
    """A slow receiver gets all trades. The replay reads no more than there is room for."""
    rows = [f"{n},AAPL,{n + 1},1" for n in range(3 * BLOCK_ROWS)]
    replay = Replay(write(tmp_path / "day.csv.gz", rows), 0, loop=False)
    send, receive = trio.open_memory_channel[Any](5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(replay.run, send)
        for number in range(len(rows)):
            assert receive.statistics().current_buffer_used <= 5
            assert (await receive.receive()).price == number + 1


async def test_loop_starts_over(tmp_path, autojump_clock):
    """Lap after lap, the replay sends the same trades. Their rows are numbered on."""
    replay = Replay(write(tmp_path / "day.csv", GOOD), 1, loop=True)
    send, receive = trio.open_memory_channel[Any](9)
    row = 0
    for _ in range(3):
        row = await replay.run(send, played=Played(FeedPosition(replay.file, row)))
    trades = [receive.receive_nowait() for _ in range(9)]
    assert [seen(trade) for trade in trades] == 3 * TRADES
    assert [trade.row for trade in trades] == [2, 3, 4, 7, 8, 9, 12, 13, 14]


async def test_loop_of_nothing_is_an_error(tmp_path):
    """Looping over a file without a trade raises ReplayError."""
    replay = Replay(write(tmp_path / "day.csv", ["bad"]), 0, loop=True)
    send, _ = trio.open_memory_channel[Any](0)
    with pytest.raises(ReplayError, match="holds no trade"):
        await replay.run(send)


@pytest.mark.parametrize("row", BAD_ROWS.values(), ids=BAD_ROWS)
async def test_bad_row_is_skipped_and_named(tmp_path, row):
    """The rows around a bad one are sent. The bad row is counted, and the log has its line."""
    path = write(tmp_path / "day.csv", [GOOD[0], row, *GOOD[1:]])
    with structlog.testing.capture_logs() as lines:
        moments, replay = await replay_all(path)
    assert [seen(trade) for _, trade in moments] == TRADES
    assert replay.bad_rows == 1
    assert [(line["line"], line["bad_rows"]) for line in lines] == [(3, 1)]
    assert len(str(lines[0])) < 1000


async def test_price_that_is_zero_at_its_symbol_s_tick_is_a_bad_row(tmp_path):
    """A price that rounds to zero at the tick is bad. Any other positive price is valid."""
    path = write(
        tmp_path / "day.csv", ["1,A,0.00005001,1", "1,A,0.00004,1", "1,B,0.0049,1", "1,B,0.0051,1"]
    )
    replay = Replay(path, 0, loop=False)
    send, receive = trio.open_memory_channel[Any](4)
    listed = {
        symbol: Instrument(symbol=symbol, name=symbol, base_price=1.0, price_decimals=decimals)
        for symbol, decimals in (("A", 4), ("B", 2))
    }
    await replay.run(send, listed.__getitem__)
    assert [receive.receive_nowait().price for _ in range(2)] == [0.00005001, 0.0051]
    assert replay.bad_rows == 2


async def test_rows_of_every_kind(tmp_path):
    """A size may be a fraction, a price below zero, and bid and ask may follow. A row without a price
    has a book only; each row is one update.
    """
    rows = [
        "1,BTC/USD,43210.5,0.00000001,43210,43211",
        "2,BTC/USD,,,,43212.25",
        "3,CLK0,-37.63,2,,",
        "4,BTC/USD,1,0.000000001,,",  # more decimals than its sizes have
        "5,CLK0,1,0.5,,",
        "6,BTC/USD,-1,1,,",
        "7,BTC/USD,1,1,-1,",
        "8,BTC/USD,1,1,2,x",
        "9,BTC/USD,1,,1,2",
        "10,BTC/USD,1,nan,,",
        "11,BTC/USD,1,1,2",
    ]
    path = write(tmp_path / "day.csv", rows, header=f"{HEADER},bid,ask")
    replay = Replay(path, 0, loop=False)
    send, receive = trio.open_memory_channel[Any](20)
    oil = Instrument(symbol="CLK0", name="Oil", type="FUTURE", base_price=1.0)
    await replay.run(send, lambda symbol: oil if symbol == "CLK0" else UNLISTED)
    send.close()
    both, book, trade = [msgspec.structs.replace(each, ts=0) async for each in receive]
    day = DayRange(43210.5, 43210.5, 43210.5)
    quoted = Book(43210.0, 43211.0, None, None)
    minutes = (traded(43210.5, 1e-8, 1000),)
    expected = Change("BTC/USD", 43210.5, 1e-8, 1000, 0, both.row, day, quoted, minutes=minutes)
    assert both == expected
    assert book == TopOfBook("BTC/USD", None, 43212.25, None, None, 2000, 0, both.row + 1)
    assert trade == Trade("CLK0", -37.63, 2, 3000, 0, row=both.row + 2)
    assert replay.bad_rows == 8


async def test_negative_zero_is_zero(tmp_path):
    """No price or size shows the sign of a zero, also if only the tick makes it a zero."""
    rows = ["1,CLK0,-0.0,-0,-0.0,-0.001", "2,CLK0,-0.001,-0.0,,"]
    path = write(tmp_path / "day.csv", rows, header=f"{HEADER},bid,ask")
    send, receive = trio.open_memory_channel[Any](20)
    oil = Instrument(symbol="CLK0", name="Oil", type="FUTURE", base_price=1.0, price_decimals=2)
    await Replay(path, 0, loop=False).run(send, lambda _: oil)
    send.close()
    both, trade = [each async for each in receive]
    book = both.book
    numbers = [both.price, both.volume, book.bid, book.ask, trade.price, trade.size]
    assert [str(abs(each)) for each in numbers] == [str(each) for each in numbers]
    assert not any(numbers)


async def test_bytes_that_are_no_utf8_are_a_bad_row(tmp_path):
    """A damaged symbol does not end the replay."""
    path = write(tmp_path / "day.csv", GOOD)
    path.write_bytes(path.read_bytes().replace(b"msft", b"ms\xff\xfet"))
    moments, _ = await replay_all(path)
    assert len(moments) == 3


async def test_bad_rows_are_logged_once_a_second(tmp_path):
    """A file of bad rows gives one log line, and all its rows are counted."""
    path = write(tmp_path / "day.csv", ["bad"] * 3000)
    with structlog.testing.capture_logs() as lines:
        moments, replay = await replay_all(path)
    assert (len(moments), replay.bad_rows) == (0, 3000)
    assert len(lines) == 1


def damaged(tmp_path: Path) -> tuple[Path, int]:
    """Return the first half of a compressed file, long enough for its header, and its whole rows."""
    path = write(
        tmp_path / "day.csv.gz", [f"{n},AAPL,{n % 977 + 1}.{n % 89},1" for n in range(20_000)]
    )
    half = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(half)
    return path, zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(half).count(b"\n") - 1


async def test_archive_that_breaks_off_is_an_error_after_what_was_readable(tmp_path):
    """Every row before the damage is streamed, then the replay fails with one line."""
    path, rows = damaged(tmp_path)
    replay = Replay(path, 0, loop=False)
    send, receive = trio.open_memory_channel[Any](100_000)
    with pytest.raises(ReplayError, match=r"cannot read on in .*day\.csv\.gz"):
        await replay.run(send)
    assert receive.statistics().current_buffer_used == rows > 5000


def test_what_cannot_be_replayed_is_refused_at_once(tmp_path):
    """A file that cannot be replayed raises one line with its name."""
    other = write(tmp_path / "other.csv", GOOD, "time,symbol,price,size")
    empty = tmp_path / "empty.csv"
    empty.touch()
    plain = tmp_path / "plain.csv.gz"
    plain.write_text("\n".join([HEADER, *GOOD]))
    for path in (tmp_path / "none.csv", tmp_path, other, empty, plain):
        with pytest.raises(ReplayError) as refused:
            Replay(path, 1, loop=False)
        assert str(path) in str(refused.value)
        assert "\n" not in str(refused.value)
