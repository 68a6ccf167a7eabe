"""The next leader revises the trades that the last one kept."""

import random
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from server.intake.kept_log import KeptLog
from server.intake.names import id_hash
from server.intake.once import ID_MEMORY_US
from server.intake.state import restore, save
from tests.intake.harness import NOW, SECOND, Desk, counts


class Leader(Desk):
    """A desk whose steps are written down."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[tuple[int, bytes]] = []
        self.log = KeptLog()
        self.log.restore(self.intake, [], NOW)

    def step(self, *objects: dict[str, Any], source: str = "sip") -> None:
        """Publish objects, and write the step."""
        self.publish(*objects, source=source)
        if entry := self.log.take(self.intake, self.now):
            self.entries.append((self.now, entry))

    def successor(self, skipped: int = 0) -> "Leader":
        """Return the next leader. It has the quotes and all states, but the first entries are gone."""
        other = Leader()
        other.quotes, other.versions = dict(self.quotes), dict(self.versions)
        # Its sources have other numbers.
        other.intake.sources.get("other", NOW)
        restore(other.intake, {"AAPL": save(self.intake, "AAPL")}, NOW)
        other.log.restore(other.intake, self.entries[skipped:], self.now)
        return other


def trade(number: int, price: float, tick: int, size: int = 1) -> dict[str, Any]:
    return {"price": price, "size": size, "ts": NOW - tick * SECOND, "id": f"t-{number}"}


CHANGES = st.lists(
    st.tuples(st.sampled_from(["trade", "trade", "trade", "cancel", "correct"]), st.integers(1, 9)),
    min_size=1,
    max_size=30,
)


@given(CHANGES, st.integers(0, 3), st.randoms(use_true_random=False))
def test_each_kept_trade_is_revised_alike(
    changes: list[tuple[str, int]], skipped: int, chance: random.Random
) -> None:
    """Whatever came, late or not, from two sources, and was revised before. Trades of entries that are
    gone are not kept. The quote is the same after each revision of another trade.
    """
    leader = Leader()
    ids = list[str]()
    for number, (kind, price) in enumerate(changes):
        if kind == "trade":
            ids.append(f"t-{number}")
            # Without the first entries, nobody knows the order among trades of several sources.
            source = "sip" if skipped else chance.choice(["sip", "iex"])
            leader.step(trade(number, price, chance.randrange(5)), source=source)
        elif ids:
            leader.step({"kind": kind, "id": chance.choice(ids), "price": price, "size": price})
    other = leader.successor(min(skipped, len(leader.entries) - 1) if skipped else 0)
    for each in ids:
        if other.intake.trades.find("AAPL", id_hash("AAPL", each)) is None:
            continue
        revision = {"kind": chance.choice(["cancel", "correct"]), "id": each, "price": 5}
        assert counts(other.publish(revision)) == counts(leader.publish(revision))
        assert other.quotes["AAPL"] == leader.quotes["AAPL"]
    if not skipped:
        assert len(other.intake.trades) == len(leader.intake.trades)


def test_entry_counts_once() -> None:
    """A step that was written twice has each trade once."""
    leader = Leader()
    leader.step(trade(1, 10, 0))
    leader.step(trade(2, 11, 0))
    leader.entries += leader.entries[-1:]
    other = leader.successor()
    assert len(other.intake.trades) == 2
    assert other.publish({"kind": "cancel", "id": "t-2"}).accepted == 1
    assert (other.quotes["AAPL"].current_price, other.quotes["AAPL"].volume) == (10, 1)


def test_trades_that_do_not_lead_to_the_quote_are_forgotten() -> None:
    """A revision of them would give a wrong price. So would the entries of another program."""
    leader = Leader()
    leader.step(trade(1, 10, 0), trade(2, 11, 0))
    lost = leader.entries.copy()
    leader.step(trade(3, 12, 0))
    wrong = msgspec.msgpack.encode(
        [b"n", {1: "sip"}, {"AAPL": [None, "", True, [[0, [2**63] * 6]]]}]
    )
    huge = msgspec.msgpack.encode(
        [b"m", {}, {"AAPL": [[1, 1, 1, 1, True], "", True, [[0, [2**63, 0, 0, 1, 1, 1]]]]}]
    )
    leader.entries = [(NOW, b"garbage"), (NOW, wrong), (NOW, huge), *lost]
    other = leader.successor()
    assert len(other.intake.trades) == 0
    answer = other.publish({"kind": "cancel", "id": "t-2"})
    assert answer.rejected[0].code == "unknown_trade"
    assert other.publish(trade(4, 13, 0), {"kind": "cancel", "id": "t-4"}).accepted == 2


def test_delisted_symbols_trades_are_gone() -> None:
    leader = Leader()
    leader.step(trade(1, 10, 0))
    leader.intake.forget(["AAPL"])
    leader.step()
    other = leader.successor()
    assert len(other.intake.trades) == 0


def test_log_is_bounded(monkeypatch) -> None:
    """By its bytes, and to five minutes."""
    leader = Leader()
    for number in range(50):
        leader.step(trade(number, 10, 0))
    assert leader.log.length == 50
    leader.now += ID_MEMORY_US + 1
    leader.step(trade(90, 10, 0))
    assert leader.log.length == 1
    monkeypatch.setattr("server.intake.kept_log.LOG_BYTES", 5 * len(leader.entries[-1][1]))
    for number in range(100, 150):
        leader.step(trade(number, 10, 0))
    assert leader.log.length in (4, 5)
