"""Every object counts once, in whatever order and however often it comes."""

import random
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.intake.market import Rules
from server.intake.names import id_hash
from server.intake.once import ID_MEMORY_US, SEQ_WINDOW, RecentIds, SeenSeqs
from server.intake.sources import MAX_EPOCHS, Progress
from server.intake.state import restore, save
from server.quotes.quote import Quote
from tests.intake.harness import NOW, SECOND, Desk, counts

TRADES = st.lists(
    st.tuples(st.integers(1, 9), st.integers(1, 500), st.integers(0, 50)), min_size=1, max_size=12
)


def test_same_sequence_number_counts_once() -> None:
    """Of one source, epoch and symbol; each of these has its own numbers."""
    desk = Desk()
    first = {"price": 1, "size": 5, "seq": 7}
    assert counts(desk.publish(first, first))[:2] == (1, 1)
    assert counts(desk.publish(first, source="iex"))[0] == 1
    assert counts(desk.publish(first, epoch="2"))[0] == 1
    assert counts(desk.publish({**first, "symbol": "CLK0"}))[0] == 1
    assert counts(desk.publish({"kind": "quote", "bid": 1, "seq": 7}))[1] == 1
    assert desk.quotes["AAPL"].volume == 15


def test_numbers_of_many_epochs_count_once() -> None:
    """The numbers of the last 64 epochs are remembered; a use of an epoch makes it the last."""
    desk = Desk()
    first = {"price": 1, "size": 5, "seq": 7}
    for epoch in range(MAX_EPOCHS):
        assert counts(desk.publish(first, epoch=str(epoch)))[0] == 1
    for epoch in range(MAX_EPOCHS):
        assert counts(desk.publish(first, epoch=str(epoch)))[1] == 1
    for epoch in range(MAX_EPOCHS, 3 * MAX_EPOCHS):
        assert counts(desk.publish(first, epoch="0"))[1] == 1
        assert counts(desk.publish(first, epoch=str(epoch)))[0] == 1
    assert MAX_EPOCHS >= 64


def test_saved_epochs_are_not_used() -> None:
    """An epoch that is only saved is forgotten when 64 others were used after it."""
    desk = Desk()
    first = {"price": 1, "size": 5, "seq": 7}
    desk.publish(first, epoch="old")
    for epoch in range(MAX_EPOCHS):
        desk.publish({**first, "symbol": "CLK0"}, epoch=str(epoch))
        save(desk.intake, "AAPL")
    assert counts(desk.publish(first, epoch="old"))[0] == 1


def test_same_id_counts_once_within_five_minutes() -> None:
    """Of one symbol, whichever source sends it."""
    desk = Desk()
    first = {"price": 1, "size": 5, "id": "t-991"}
    assert counts(desk.publish(first, {**first, "seq": 1}))[:2] == (1, 1)
    desk.pass_time(299)
    assert counts(desk.publish(first, source="iex"))[1] == 1
    assert counts(desk.publish({**first, "symbol": "CLK0"}))[0] == 1
    desk.pass_time(601)
    assert counts(desk.publish(first))[0] == 1


@pytest.mark.parametrize("tens", [0, 14, 29, 31, 59, 100])
def test_id_is_remembered_for_five_minutes_whenever_it_came(tens: int) -> None:
    """Others come all the time, and what is forgotten of these is not forgotten with it."""
    desk = Desk()

    def pass_tens(number: int) -> None:
        for _ in range(number):
            desk.publish({"price": 1, "id": f"at {desk.now}"})
            desk.pass_time(10)

    trade = {"price": 1, "size": 5, "id": "t-991"}
    pass_tens(tens)
    assert counts(desk.publish(trade))[0] == 1
    pass_tens(30)
    assert counts(desk.publish(trade))[1] == 1
    pass_tens(31)
    assert counts(desk.publish(trade))[0] == 1


def test_rejected_object_may_come_again() -> None:
    """Its number and its id are still free."""
    desk = Desk()
    bad = {"price": -1, "seq": 1, "id": "a"}
    assert counts(desk.publish(bad))[4] == ["bad_price"]
    assert counts(desk.publish({**bad, "price": 1}))[0] == 1


@given(st.lists(st.integers(0, 3 * SEQ_WINDOW), max_size=60), st.integers(0, 2**40))
def test_window_of_numbers_agrees_with_a_set(numbers: Sequence[int], base: int) -> None:
    """A number above the window counts exactly once; one below it never does."""
    seen, model = SeenSeqs(), set[int]()
    for seq in (base + each for each in numbers):
        new = seq not in seen
        assert new is (seq not in model and seq > max(model, default=-1) - SEQ_WINDOW)
        if new:
            seen.add(seq)
            model.add(seq)


@given(st.lists(st.integers(0, 3 * SEQ_WINDOW), max_size=60), st.integers(0, 2**40))
def test_old_number_is_unknown_or_was_counted(numbers: Sequence[int], base: int) -> None:
    """A number between the unknown ones and the window was counted."""
    seen, model = SeenSeqs(), set[int]()
    for seq in (base + each for each in numbers):
        if seq not in seen:
            seen.add(seq)
            model.add(seq)
        else:
            assert seq in model or seq <= seen.unknown
        assert seen.unknown not in model


def test_number_that_is_too_old_is_not_a_duplicate() -> None:
    """If numbers are times, one below the window is rejected by name, also after a restore."""
    desk, other = Desk(), Desk()
    trade = {"price": 1, "size": 1}
    desk.publish({**trade, "seq": NOW})
    restore(other.intake, {"AAPL": save(desk.intake, "AAPL")}, NOW)
    for each in (desk, other):
        old = {**trade, "seq": NOW - 10_000, "id": "a"}
        answer = each.publish(old, {**old, "seq": NOW - SEQ_WINDOW + 1}, old)
        assert counts(answer) == (0, 1, 1, 0, ["seq_too_old"])
    steady = Desk()
    steady.publish(*({**trade, "seq": seq} for seq in range(1000, 2 * SEQ_WINDOW)))
    assert counts(steady.publish({**trade, "seq": 1000}))[1] == 1
    assert counts(steady.publish({**trade, "seq": 999}))[4] == ["seq_too_old"]


def test_numbers_in_order_need_no_memory() -> None:
    """A million numbers of one symbol are one number."""
    seen = SeenSeqs()
    for seq in range(1_000_000, 1_010_000):
        assert seq not in seen
        seen.add(seq)
    assert (seen.floor, seen.above) == (1_009_999, 0)


def test_memory_of_ids_is_bounded() -> None:
    """If too many come, the oldest are forgotten before their time."""
    ids = RecentIds(most=100)
    for key in range(1000):
        ids.add(key)
    assert len(ids) == 200
    assert 999 in ids
    assert 1 not in ids
    ids.pass_time(NOW + 2 * ID_MEMORY_US)
    assert 999 not in ids


def final_quote(objects: Sequence[dict[str, Any]], batches: int) -> Quote:
    """Return the quote after `objects`, cut into batches."""
    desk = Desk()
    for start in range(batches):
        desk.publish(*objects[start::batches])
    return desk.quotes["AAPL"]


@given(TRADES, st.randoms(use_true_random=False), st.integers(1, 4))
def test_any_order_and_repetition_gives_the_same_quote(
    trades: list[tuple[int, int, int]], chance: random.Random, batches: int
) -> None:
    """Price, time, volume, open, high, low and book of one source depend on its objects only."""
    objects: list[dict[str, Any]] = [
        {"price": price, "size": size, "ts": NOW - tick * SECOND, "seq": seq, "id": f"t{seq}"}
        for seq, (price, size, tick) in enumerate(trades)
    ]
    objects += [
        {"kind": "quote", "bid": price, "ts": NOW - tick, "seq": 100 + seq}
        for seq, (price, _, tick) in enumerate(trades)
    ]
    ordered = sorted(objects, key=lambda each: (each["ts"], each["seq"]))
    shuffled = objects + chance.choices(objects, k=len(objects))
    chance.shuffle(shuffled)
    assert final_quote(shuffled, batches) == final_quote(ordered, 1)


@given(TRADES, st.randoms(use_true_random=False))
def test_versions_count_the_distinct_trades(
    trades: list[tuple[int, int, int]], chance: random.Random
) -> None:
    """Each trade that has a size makes exactly one version, in whatever order it comes."""
    objects = [
        {"price": price, "size": size, "ts": NOW - tick * SECOND, "seq": seq}
        for seq, (price, size, tick) in enumerate(trades)
    ]
    shuffled = objects * 2
    chance.shuffle(shuffled)
    desk = Desk()
    answer = desk.publish(*shuffled)
    assert desk.versions["AAPL"] == 1 + len(trades)
    assert answer.accepted + answer.late == answer.duplicate == len(trades)


def test_progress_goes_on_elsewhere() -> None:
    """Another instance that restores it counts nothing again, and knows what is late."""
    first, second = Desk(), Desk()
    objects = [{"price": 1, "size": 1, "seq": seq, "ts": NOW - seq} for seq in (1, 2, 5, 900)]
    first.publish(*objects)
    saved = msgspec.json.encode([first.intake.sources.progress("sip", "1", "AAPL")])
    second.intake.sources.restore(msgspec.json.decode(saved, type=list[Progress]), NOW)
    assert counts(second.publish(*objects))[:2] == (0, 4)
    assert counts(second.publish({"price": 1, "seq": 3, "ts": NOW - 2}))[2] == 1
    assert counts(second.publish({"price": 1, "seq": 4, "ts": NOW}))[0] == 1


def test_state_of_a_symbol_goes_on_elsewhere() -> None:
    """Numbers, times, held trades and ids: the other intake answers as the first would have."""
    rules = Rules(band=0.1)
    first, second = Desk(rules), Desk(rules)
    objects = [{"price": 100, "size": 1, "seq": seq, "ts": NOW - 10} for seq in (1, 2, 5)]
    first.publish(*objects, {"price": 200, "size": 7, "seq": 6, "id": "held"})
    ids: list[int] = []
    first.intake.ids.news = ids
    first.publish({"price": 101, "size": 1, "id": "t-1", "ts": NOW})
    saved = {"AAPL": save(first.intake, "AAPL"), "MSFT": b"garbage", "IBM": b""}
    assert restore(second.intake, saved, NOW) == 2
    second.intake.ids.restore(ids, NOW)
    assert second.intake.held.count == 1
    again = second.publish(*objects, {"price": 101, "size": 1, "id": "t-1", "ts": NOW})
    assert counts(again)[:2] == (0, 4)
    assert counts(second.publish({"price": 100, "seq": 3, "ts": NOW - 1}))[2] == 1
    corrected = second.publish({"kind": "correct", "id": "held", "price": 102})
    assert corrected.accepted == 1
    assert second.intake.held.count == 0


def test_hash_of_an_id_is_the_same_in_every_process() -> None:
    """The next leader compares it. A cancel's is another one."""
    assert id_hash("AAPL", "t-991") == 8251764003443572030
    assert id_hash("AAPL", 5) == id_hash("AAPL", "5")
    assert id_hash("AAPL", "t-991", b"cancel") != id_hash("AAPL", "t-991")
    assert not id_hash("AAPL", None)
