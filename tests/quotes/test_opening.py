"""Openings: each counts once, and conflating them with other updates loses nothing."""

from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from server.quotes.instrument import Instrument
from server.quotes.opening import begun_once, in_session, opened, opening_of
from server.quotes.quote import Quote, move_of, opening_quote, quote_after, snapshot_of
from server.quotes.update import Move, NewSession, TopOfBook, Trade, Update, merged

AAPL = Instrument(symbol="AAPL", name="Apple Inc.", base_price=100.0)

FIRST, SECOND = 1_000_000, 2_000_000

trades = st.builds(
    lambda price, size: Trade("AAPL", price, size, 7, 8), st.integers(50, 60), st.integers(0, 9)
)
updates = st.lists(
    st.one_of(
        trades,
        st.sampled_from([NewSession("AAPL", each, 9) for each in (FIRST, SECOND)]),
        st.just(TopOfBook("AAPL", 1.0, 2.0, 3, 4, 5, 6)),
    ),
    min_size=1,
    max_size=8,
)

State = tuple[Quote, Instrument]


def after(state: State, update: Update) -> State:
    """Return a quote and its reference data after an update, as a topic makes them."""
    quote, instrument = state
    update = begun_once(update, instrument)
    new = quote_after(quote, update, 2)
    opening = opening_of(update)
    return new, opened(instrument, opening, new) if opening else instrument


def conflated(updates: list[Update]) -> Update:
    """Return one update with the effect of all."""
    return reduce(merged, updates)


@given(updates)
def test_conflated_updates_make_the_same_quote(updates):
    """Openings in any order of sessions, between trades and books. Only the order of sessions that a
    clock never has may differ: a session that has begun does not begin again.
    """
    start = opening_quote(AAPL), AAPL
    one_by_one = reduce(after, updates, start)
    openings = [each.time_us for each in updates if isinstance(each, NewSession)]
    if openings == sorted(openings):
        assert after(start, conflated(updates)) == one_by_one


@given(updates)
def test_moves_make_the_leader_s_quote(updates):
    """A follower that gets each move, or several as one, has the leader's quote and reference data."""
    state = follower = opening_quote(AAPL), AAPL
    moves: list[Move] = []
    for version, update in enumerate(updates, 2):
        counted = begun_once(update, state[1])
        state = after(state, update)
        moves.append(move_of(counted, version, state[0]))
    assert reduce(after, moves, follower) == state
    assert after(follower, conflated([*moves])) == state


def test_session_begins_once():
    """A second opening of the same session leaves its trades alone."""
    opening, trade = NewSession("AAPL", FIRST, 9), Trade("AAPL", 101.0, 5, 7, 8)
    start, updates = (opening_quote(AAPL), AAPL), list[Update]([opening, trade, opening])
    quote, instrument = reduce(after, updates, start)
    assert (quote.open, quote.volume, instrument.opened_at) == (101.0, 5, FIRST)
    assert after(start, conflated(updates)) == (quote, instrument)


def test_stored_state_is_read_in_the_present_session():
    """A symbol that nobody has in memory has the same quote as one that was opened there."""
    quote = quote_after(opening_quote(AAPL), Trade("AAPL", 101.0, 5, 7, 8), 2)
    stored = snapshot_of(AAPL, quote, 2)
    new, instrument = after((quote, AAPL), NewSession("AAPL", FIRST, 9))
    assert in_session(stored, FIRST) == snapshot_of(instrument, new, 3)
    assert in_session(in_session(stored, FIRST), FIRST) == in_session(stored, FIRST)
    untraded = snapshot_of(AAPL, opening_quote(AAPL), 1)
    assert in_session(untraded, FIRST) == untraded
    traded_since = quote_after(opening_quote(AAPL), Trade("AAPL", 101.0, 5, FIRST, 8), 2)
    present = snapshot_of(AAPL, traded_since, 2)
    assert in_session(present, FIRST) == present
