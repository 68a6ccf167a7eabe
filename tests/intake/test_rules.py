"""Late and held trades, sources that fail over, and trades that are revised."""

import sys

import msgspec
import pytest
from msgspec import UNSET

from server.intake import new_symbols
from server.intake.held import HELD_A_SYMBOL
from server.intake.kept import Row, Values
from server.intake.market import Notice, Rules
from server.intake.objects import read_batch
from server.intake.sources import MAX_SOURCES
from server.intake.trades import KeptTrades
from server.quotes.instrument import Instrument
from server.quotes.quote import opening_quote
from server.quotes.update import TopOfBook, Trade
from tests.intake.harness import NOW, SECOND, Desk, counts

BAND = Rules(band=0.1)
RANKED = Rules(priority=("sip", "iex"))


def test_late_trade_counts_for_the_volume() -> None:
    """It never moves the price or its time; a late bid has no effect at all."""
    desk = Desk()
    desk.publish({"price": 10, "size": 1, "ts": NOW}, {"kind": "quote", "bid": 9, "ts": NOW})
    answer = desk.publish(
        {"price": 12, "size": 2, "ts": NOW - 1}, {"kind": "quote", "bid": 8, "ts": NOW - 1}
    )
    quote = desk.quotes["AAPL"]
    assert counts(answer)[:3] == (0, 0, 2)
    assert (quote.current_price, quote.volume, quote.high, quote.bid) == (10, 3, 12, 9)


def test_lateness_is_of_one_source() -> None:
    """Another source's clock may be behind, and its trade still moves the price."""
    desk = Desk()
    desk.publish({"price": 10, "ts": NOW})
    assert counts(desk.publish({"price": 12, "ts": NOW - SECOND}, source="iex"))[0] == 1
    assert desk.quotes["AAPL"].current_price == 12


def test_price_before_a_restart_is_never_moved_back() -> None:
    """Trades older than the restored price are late for every source, also after a split."""
    before, desk = Desk(), Desk()
    before.publish({"price": 170, "size": 1, "ts": NOW - 5 * SECOND})
    desk.quotes["AAPL"] = before.quotes["AAPL"]
    old = {"price": 100, "size": 2, "ts": NOW - 6 * SECOND}
    for source in ("sip", "iex"):
        assert counts(desk.publish(old, source=source))[2] == 1
    desk.instruments["AAPL"] = msgspec.structs.replace(desk.instruments["AAPL"], adjustments="x")
    assert counts(desk.publish(old, source="third"))[2] == 1
    quote = desk.quotes["AAPL"]
    assert (quote.current_price, quote.volume, quote.low) == (170, 7, 100)
    new = {"price": 171, "size": 1, "ts": NOW - 5 * SECOND, "seq": 1}
    assert counts(desk.publish(new, old))[:3] == (1, 0, 1)
    assert desk.quotes["AAPL"].current_price == 171


def test_outlier_is_held_until_three_more_agree() -> None:
    """Then all of them count, and the newest is the price."""
    desk = Desk(BAND)
    desk.publish({"price": 100, "size": 1})
    outliers = [{"price": 150 + n, "size": 1, "ts": NOW - 10 + n} for n in range(4)]
    assert counts(desk.publish(*outliers[:3])) == (0, 0, 0, 3, [])
    assert desk.quotes["AAPL"].current_price == 100
    assert desk.intake.held.count == 3
    assert counts(desk.publish({"price": 101, "size": 1}))[0] == 1
    assert counts(desk.publish({**outliers[3], "ts": NOW + 1}))[0] == 1
    assert desk.intake.held.count == 0
    quote = desk.quotes["AAPL"]
    assert (quote.current_price, quote.volume, quote.high, quote.low) == (153, 6, 153, 100)


def test_first_trade_is_not_held_if_the_price_is_invented() -> None:
    """An invented base price is not a last price, nor is one that nobody knows."""
    desk = Desk(BAND)
    assert counts(desk.publish({"price": 900}))[0] == 1
    nothing = Instrument(symbol="CLK0", name="Crude oil", type="FUTURE", base_price=None)
    desk.instruments["CLK0"], desk.quotes["CLK0"] = nothing, opening_quote(nothing)
    assert counts(desk.publish({"symbol": "CLK0", "price": 900}))[0] == 1


def test_first_trade_is_held_if_it_is_far_from_the_catalogue() -> None:
    """The price that clients see is the last price, also before the first trade."""
    desk = Desk(BAND)
    far, near = ({"symbol": "CLK0", "price": price, "size": 1} for price in (50, 18.5))
    assert counts(desk.publish(far))[3] == 1
    assert desk.quotes["CLK0"].current_price == 18.27
    assert counts(desk.publish(near, far, far, far)) == (2, 0, 0, 2, [])
    quote = desk.quotes["CLK0"]
    assert (quote.current_price, quote.open, quote.volume) == (50, 18.5, 5)


def test_repetitions_of_an_outlier_do_not_confirm_it() -> None:
    """The same print counts once, also while it is held."""
    desk = Desk(BAND)
    outlier = {"price": 150, "id": "x"}
    assert counts(desk.publish({"price": 100}, *[outlier] * 9)) == (1, 8, 0, 1, [])


def test_correct_and_cancel_end_a_hold() -> None:
    """A correction lets the trade count with its values; a cancelled one is gone."""
    desk = Desk(BAND)
    desk.publish({"price": 100}, {"price": 150, "size": 3, "id": "a"}, {"price": 9, "id": "b"})
    assert counts(desk.publish({"kind": "correct", "id": "a", "price": 105}))[0] == 1
    assert counts(desk.publish({"kind": "cancel", "id": "b"}))[0] == 1
    quote = desk.quotes["AAPL"]
    assert (quote.current_price, quote.volume, quote.low) == (105, 3, 100)
    assert desk.intake.held.count == 0


def test_held_trades_are_bounded_and_counted() -> None:
    """The oldest is dropped, and the count of dropped ones says so."""
    desk = Desk(BAND)
    desk.publish({"price": 1})
    desk.publish(*[{"price": round(1.5**n, 2)} for n in range(3, 43)])
    desk.publish(*[{"price": round(1.4**n, 2)} for n in range(3, 43)])
    assert desk.intake.held.count <= HELD_A_SYMBOL
    assert desk.intake.held.count + desk.intake.held.dropped >= HELD_A_SYMBOL


def test_held_trades_of_all_symbols_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then a symbol's own oldest makes room, and each symbol may have one."""
    monkeypatch.setattr("server.intake.held.HELD_IN_ALL", 10)
    desk = Desk(BAND)
    # No two of these agree.
    for number in range(12):
        for symbol in ("BTC/USD", "CLK0"):
            answer = desk.publish({"symbol": symbol, "price": 10**6 * 2**number})
            assert counts(answer)[3] == 1
    assert desk.intake.held.count == 10
    assert desk.intake.held.dropped == 14
    assert desk.intake.held.of("CLK0")[-1].price == 10**6 * 2**11


def test_first_source_has_the_price_until_it_is_silent() -> None:
    """Then the next one has it, until the first is back. Others come last."""
    desk = Desk(RANKED)
    desk.publish({"price": 100, "size": 1}, source="sip")
    answer = desk.publish({"price": 101, "size": 1}, {"kind": "quote", "bid": 7}, source="iex")
    assert (answer.accepted, answer.outranked) == (2, 2)
    assert desk.quotes["AAPL"].current_price == 100
    desk.pass_time(10)
    desk.publish({"price": 102}, source="iex")
    assert desk.quotes["AAPL"].current_price == 102
    desk.publish({"price": 103}, source="other")
    assert desk.quotes["AAPL"].current_price == 102
    desk.publish({"price": 104}, source="sip")
    desk.publish({"price": 105}, source="iex")
    assert desk.quotes["AAPL"].current_price == 104


def test_outranked_trade_leaves_its_id_to_the_first_source() -> None:
    """If the second source is faster, the first one's trade still counts."""
    desk = Desk(RANKED)
    desk.publish({"price": 100}, source="sip")
    desk.publish({"price": 101, "id": "t"}, source="iex")
    assert counts(desk.publish({"price": 101, "id": "t"}, source="sip"))[0] == 1
    assert counts(desk.publish({"kind": "cancel", "id": "u"}, source="iex"))[0] == 1


def test_symbol_that_only_the_second_source_has_is_its() -> None:
    """Silence is a symbol's: the first source may not have it at all."""
    desk = Desk(RANKED)
    desk.publish({"price": 100}, source="sip")
    desk.publish({"symbol": "CLK0", "price": 20}, source="iex")
    assert desk.quotes["CLK0"].current_price == 20


def test_too_many_sources_are_refused() -> None:
    """A batch of a further source counts nothing, until one has been silent for long."""
    desk = Desk()
    for number in range(MAX_SOURCES):
        desk.publish({"price": 1}, source=f"s{number}")
    assert counts(desk.publish({"price": 1}, source="new"))[4] == ["too_many_sources"]
    desk.pass_time(301)
    assert counts(desk.publish({"price": 1}, source="new"))[0] == 1


def test_status_reaches_the_caller_once() -> None:
    """A market's status is not a price, and counts once like everything else."""
    desk = Desk()
    halt = {"kind": "status", "status": "halted", "reason": "LUDP", "seq": 1}
    assert counts(desk.publish(halt, halt))[:2] == (1, 1)
    desk.publish({"kind": "status", "status": "open"})
    assert desk.notices == [Notice("AAPL", "halted", "LUDP"), Notice("AAPL", "open", "resumed")]


def test_renamed_symbol_is_one_symbol() -> None:
    """A trade under either name counts once, for the new name; it may be cancelled under both."""
    desk = Desk()
    desk.instruments["OLD"] = desk.instruments["AAPL"]
    assert desk.publish({"symbol": "OLD", "price": 10, "size": 1, "id": "x"}).accepted == 1
    assert desk.publish({"price": 10, "size": 1, "id": "x"}).duplicate == 1
    assert (desk.quotes["AAPL"].current_price, desk.quotes["AAPL"].volume) == (10, 1)
    desk.publish({"price": 11, "size": 2, "id": "y"})
    assert desk.publish({"symbol": "OLD", "kind": "cancel", "id": "y"}).accepted == 1
    assert (desk.quotes["AAPL"].current_price, desk.quotes["AAPL"].volume) == (10, 1)


def test_kept_trades_stay_within_their_memory() -> None:
    """Beyond it every symbol loses its oldest, and keeps its values."""
    kept = KeptTrades(memory=1_000_000)
    for n in range(60_000):
        symbol = f"S{n % 500}"
        if symbol not in kept:
            kept.begin(symbol, Values(None, 0, None, None, traded=False))
        kept.add(symbol, Row(n + 1, NOW + n, -1, float(n), 1.0, 1), late=False)
    assert kept.used <= 1_000_000
    assert len(kept) > 10_000
    assert kept.find("S499", 60_000) is not None
    assert kept.find("S499", 500) is None
    assert kept["S499"].values() == Values(59_999.0, NOW + 59_999, 59_999.0, 499.0)


def test_hundred_thousand_symbols_cost_megabytes() -> None:
    """The tables of a symbol with one trade take less than two kilobytes."""
    desk = Desk()
    symbols = [f"S{n}" for n in range(2000)]
    for symbol in symbols:
        desk.instruments[symbol] = Instrument(symbol=symbol, name=symbol, base_price=1.0)
        desk.quotes[symbol] = desk.quotes["AAPL"]
        desk.versions[symbol] = 1
    before = sys.getallocatedblocks()
    for symbol in symbols:
        desk.intake.take([], "sip", "1", None, NOW)
        desk.publish({"symbol": symbol, "price": 5, "size": 1, "seq": 1, "id": "a"})
    # A block is 512 bytes at most, and most have a tenth of that.
    assert (sys.getallocatedblocks() - before) / len(symbols) < 40


def test_trade_lists_an_unknown_symbol_if_allowed() -> None:
    """Only a trade does, as a bid is not a price to begin with. All objects behind it count."""
    desk = Desk()
    desk.may_be_listed = {"NEW"}
    bid = {"symbol": "NEW", "kind": "quote", "bid": 5}
    lines = [bid, {"symbol": "NEW", "price": 5, "size": 2, "id": "a"}, bid]
    lines += [{"symbol": "NEW", "kind": "status", "status": "halted"}]
    lines += [{"symbol": "NEW", "kind": "correct", "id": "a", "size": 3}]
    desk.quotes["NEW"], desk.versions["NEW"] = desk.quotes["AAPL"], 1
    taken = desk.intake.take(read_batch(msgspec.json.encode(lines)), "sip", "1", None, NOW)
    assert taken.effects[:2] == [
        Trade("NEW", 5, 2, NOW, NOW),
        TopOfBook("NEW", 5, None, None, None, NOW, NOW),
    ]
    assert counts(taken.answer) == (4, 0, 0, 0, ["unknown_symbol"])
    assert taken.answer.rejected[0].line == 1
    # The market may still not know it, or may have dropped it.
    assert counts(desk.publish({"symbol": "NEW", "price": -1}))[4] == ["bad_price"]
    desk.may_be_listed.clear()
    assert counts(desk.publish(bid))[4] == ["unknown_symbol"]


def test_new_symbols_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trades of more symbols are refused by name; a refused trade or a known symbol takes no place."""
    monkeypatch.setattr(new_symbols, "MAX_NEW_SYMBOLS", 2)
    desk = Desk()
    desk.may_be_listed = {"A", "B", "C"}
    desk.quotes |= dict.fromkeys(desk.may_be_listed, desk.quotes["AAPL"])

    def publish(symbol: str, price: float) -> list[str]:
        line = msgspec.json.encode({"symbol": symbol, "price": price})
        taken = desk.intake.take(read_batch(line), "sip", "1", None, NOW)
        return counts(taken.answer)[4]

    assert publish("A", -1) == ["bad_price"]
    for symbol in ("A", "A", "B"):
        assert publish(symbol, 1) == []
        desk.instruments[symbol] = desk.instruments["AAPL"]
    assert publish("C", 1) == ["too_many_symbols"]
    assert publish("A", 1) == []


def test_late_trades_and_corrections_of_many() -> None:
    """The newest first, then a correction of each that is kept."""
    desk = Desk()
    start = NOW - 5000
    lines = [{"price": 5 + n % 7, "size": 1, "ts": start - n, "id": f"t{n}"} for n in range(3000)]
    desk.publish(*lines)
    desk.publish(*({"kind": "correct", "id": f"t{n}", "size": 2} for n in range(900)))
    quote = desk.quotes["AAPL"]
    assert (quote.current_price, quote.high, quote.low, quote.volume) == (5, 11, 5, 3900)


def test_repeated_duplicates_do_not_outrank() -> None:
    """A first source that sends nothing new is silent, so the next one counts."""
    desk = Desk(RANKED)
    desk.publish({"price": 5, "seq": 1})
    desk.pass_time(11)
    assert counts(desk.publish({"price": 5, "seq": 1}))[1] == 1
    desk.publish({"price": 6, "seq": 1}, source="iex")
    assert desk.quotes["AAPL"].current_price == 6


def test_halt_of_a_lower_source_counts() -> None:
    """Only prices are the first source's. A repeated halt is a duplicate."""
    desk = Desk(RANKED)
    desk.publish({"price": 5})
    halt = {"kind": "status", "status": "halted", "seq": 1}
    assert desk.publish(halt, source="iex").outranked is UNSET
    assert counts(desk.publish(halt, source="iex"))[1] == 1
    assert desk.notices == [Notice("AAPL", "halted", "halted")]


def test_names_without_prices_lock_no_source_out() -> None:
    """A source of the priority is always admitted, and names that only failed make room."""
    desk = Desk(RANKED)
    for number in range(MAX_SOURCES):
        desk.publish({"price": 5}, source=f"s{number}")
    assert counts(desk.publish({"price": 5}, source="more"))[4] == ["too_many_sources"]
    assert counts(desk.publish({"price": 5}, source="sip"))[0] == 1
    desk = Desk()
    for number in range(MAX_SOURCES):
        desk.publish({"price": -5}, source=f"s{number}")
    assert counts(desk.publish({"price": 5}, source="more"))[0] == 1


def test_own_feeds_and_ranked_sources_take_no_others_place() -> None:
    """As many others fit beside them, and this server's own feeds are always admitted."""
    desk = Desk(Rules(priority=["sip", "iex"], own=["coinbase"]))
    for source in ("sip", "iex", *(f"s{number}" for number in range(MAX_SOURCES))):
        assert desk.publish({"symbol": "CLK0", "price": 5}, source=source).rejected == []
    assert counts(desk.publish({"price": 5}, source="more"))[4] == ["too_many_sources"]
    assert counts(desk.publish({"price": 5}, source="coinbase"))[0] == 1
