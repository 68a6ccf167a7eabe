"""What the intake knows of a symbol goes on under its new name, and ends when it is delisted."""

from typing import Any

import msgspec
import pytest

from server.intake.market import Rules
from server.intake.once import SEQ_WINDOW, SeenSeqs
from server.intake.state import renamed, restore, save
from tests.intake.harness import NOW, SECOND, Desk, counts

FB: dict[str, Any] = {"symbol": "FB"}
META: dict[str, Any] = {"symbol": "META"}


def desk(rules: Rules = Rules()) -> Desk:
    """Return a desk that knows FB."""
    made = Desk(rules)
    list_symbol(made, "FB")
    return made


def list_symbol(desk: Desk, symbol: str) -> None:
    """List a symbol anew."""
    desk.instruments[symbol] = msgspec.structs.replace(desk.instruments["AAPL"], symbol=symbol)
    desk.quotes[symbol] = msgspec.structs.replace(desk.quotes["AAPL"], symbol=symbol)
    desk.versions[symbol] = 1


def rename(desk: Desk, symbol: str = "FB", new: str = "META") -> None:
    """Rename a symbol in the market and in the intake. The old name finds the new one."""
    for known in [each for each, found in desk.instruments.items() if found.symbol == symbol]:
        desk.instruments[known] = msgspec.structs.replace(desk.instruments[symbol], symbol=new)
    desk.instruments[new] = desk.instruments[symbol]
    desk.quotes[new] = msgspec.structs.replace(desk.quotes.pop(symbol), symbol=new)
    desk.versions[new] = desk.versions.pop(symbol)
    desk.intake.rename(symbol, new, desk.now)


def elsewhere(desk: Desk, rules: Rules = Rules()) -> Desk:
    """Return the desk of the next leader, which has the state of FB under its new name."""
    other = Desk(rules)
    list_symbol(other, "META")
    other.instruments["FB"] = other.instruments["META"]
    state = renamed("FB", save(desk.intake, "FB"), "META", NOW)
    assert restore(other.intake, {"META": state}, NOW) == 0
    other.intake.ids.restore(desk.intake.ids.news or [], NOW)
    return other


@pytest.mark.parametrize("name", [FB, META])
@pytest.mark.parametrize("takeover", [False, True])
def test_object_from_before_counts_once(name: dict[str, Any], takeover: bool) -> None:
    """By its number or its id, under either name, also after a change of the leader."""
    first = desk()
    first.intake.ids.news = []
    numbered: list[dict[str, Any]] = [
        {"price": 100 + seq, "size": 1, "seq": seq} for seq in (1, 2, 5)
    ]
    named: dict[str, Any] = {"price": 101, "size": 1, "id": "t-1"}
    first.publish(*(FB | each for each in [*numbered, named]))
    if takeover:
        first = elsewhere(first)
    else:
        rename(first)
    again = first.publish(*(name | each for each in [*numbered, named]))
    assert counts(again) == (0, 4, 0, 0, [])
    more = first.publish(name | {"price": 9, "size": 1, "seq": 3}, name | named | {"id": "t-2"})
    assert counts(more)[:2] == (2, 0)


@pytest.mark.parametrize("name", [FB, META])
def test_trade_from_before_is_revised(name: dict[str, Any]) -> None:
    """It is still kept, a cancel of it counts once, and a trade's order goes on."""
    one = desk()
    one.publish(*(FB | {"price": 100 + n, "size": 1, "id": f"t-{n}", "ts": NOW} for n in range(3)))
    cancel = {"kind": "cancel", "id": "t-2"}
    one.publish(FB | cancel)
    rename(one)
    assert counts(one.publish(name | cancel))[:2] == (0, 1)
    assert one.publish(name | {"kind": "correct", "id": "t-1", "price": 90}).accepted == 1
    assert one.quotes["META"].current_price == 90
    assert one.publish(name | {"kind": "cancel", "id": "t-1"}).accepted == 1
    quote = one.quotes["META"]
    assert (quote.current_price, quote.volume, quote.high) == (100, 1, 100)
    assert one.publish(name | {"price": 1, "size": 1, "ts": NOW - 1}).late == 1
    one.pass_time(1200)
    assert one.publish(name | {"kind": "cancel", "id": "t-0"}).accepted == 1


@pytest.mark.parametrize("takeover", [False, True])
def test_held_trade_from_before_is_confirmed_and_corrected(takeover: bool) -> None:
    rules = Rules(band=0.1)
    one = desk(rules)
    one.publish(FB | {"price": 100}, *(FB | {"price": 200, "id": each} for each in "ab"))
    if takeover:
        one = elsewhere(one, rules)
        one.publish(META | {"price": 100})
    else:
        rename(one)
    assert one.publish(FB | {"kind": "correct", "id": "a", "price": 101}).accepted == 1
    assert one.intake.held.count == 1
    for _ in range(3):
        one.publish(META | {"price": 201})
    assert one.intake.held.count == 0
    assert one.quotes["META"].high == 201


def test_renamed_twice_and_named_anew() -> None:
    """Ids under each of the names are known. Another instrument with the first name has its own."""
    one = desk()
    trade: dict[str, Any] = {"price": 100, "size": 1, "id": "t-1"}
    one.publish(FB | trade)
    rename(one)
    one.publish(META | trade | {"id": "t-2"})
    rename(one, "META", "MVRS")
    for name in ("FB", "META", "MVRS"):
        for each in ("t-1", "t-2"):
            assert one.publish({"symbol": name} | trade | {"id": each}).duplicate == 1
    one.pass_time(601)
    list_symbol(one, "FB")
    assert one.publish(FB | trade | {"id": "t-9", "seq": 1}).accepted == 1
    assert one.publish({"symbol": "MVRS"} | trade | {"id": "t-9", "seq": 1}).accepted == 1


def test_symbol_that_is_listed_anew_begins_anew() -> None:
    """A delisted symbol's numbers, times, trades and held trades do not count for the next one."""
    one = desk(Rules(band=0.1))
    one.publish(FB | {"price": 100, "seq": 5, "id": "t-1"}, FB | {"price": 900, "id": "far"})
    one.intake.forget(["FB"])
    assert (one.intake.held.count, len(one.intake.trades)) == (0, 0)
    list_symbol(one, "FB")
    old = FB | {"price": 100, "seq": 5, "ts": NOW - 60 * SECOND}
    assert counts(one.publish(old)) == (1, 0, 0, 0, [])
    assert one.publish(FB | {"kind": "cancel", "id": "t-1"}).rejected[0].code == "unknown_trade"


def test_symbol_that_was_seen_under_both_names_counts_each_number_once() -> None:
    """A publisher may use the new name before the server hears of it."""
    one = desk()
    list_symbol(one, "META")
    one.publish(*(FB | {"price": 100, "size": 1, "seq": seq} for seq in (0, 1, 2, 9)))
    one.publish(*(META | {"price": 100, "size": 1, "seq": seq} for seq in (3, 4, 7)))
    one.intake.rename("FB", "META", NOW)
    answer = one.publish(*(META | {"price": 100, "size": 1, "seq": seq} for seq in range(10)))
    assert counts(answer)[:3] == (0, 7, 3)


@pytest.mark.parametrize("far", [10, SEQ_WINDOW + 7])
def test_merged_numbers_are_those_of_both(far: int) -> None:
    one, two = SeenSeqs(), SeenSeqs()
    for seq in (0, 1, 4):
        one.add(seq)
    for seq in (2, 3, far):
        two.add(seq)
    two.merge(one)
    assert [seq in two for seq in (0, 1, 2, 3, 4, far)] == [True] * 6
    assert (far - 1) not in two
    assert (5 in two) is (far > SEQ_WINDOW)
