"""The state of the connection as `watch` tells it."""

import pytest

from server.client.connection import Connection
from tests.client.patches import NOW, message


def words(connection: Connection, now: float = NOW) -> str:
    return "  ".join(word for word, _ in connection.words(now))


def test_state_counts_down_and_comes_back():
    """Connecting, live, lost with the wait, live again."""
    connection = Connection()
    assert words(connection) == "◌ connecting"
    connection.take(message({"A": 1}, {"A": 1.0}), NOW)
    assert words(connection) == "● live  nothing missed"
    lost = {"type": "connection", "problem": "the connection ended", "retry_in": 7.0}
    connection.take(lost, NOW)
    assert words(connection, NOW + 2) == "✕ reconnecting in 5 s: the connection ended"
    assert words(connection, NOW + 9) == "✕ reconnecting: the connection ended"
    ack = {"type": "ack", "action": "resume", "recovered": {"A": "current", "B": "quote"}}
    connection.take(ack, NOW)
    assert words(connection) == "● live  nothing missed, 1 fetched again"


def test_gap_is_told_until_it_is_closed():
    """`since` names the update before, so a change of other fields is not a gap."""
    connection = Connection()
    connection.take(message({"A": 1}, {"A": 1.0}), NOW)
    connection.take(message({"A": 2}), NOW)
    connection.take(message({"A": 5}, since={"A": 2}), NOW)
    assert "nothing missed" in words(connection)
    connection.take(message({"A": 7}), NOW)
    assert "asking again for 1" in words(connection)
    connection.take(message({"A": 7}, {"A": 1.0}), NOW)
    assert "nothing missed, 1 fetched again" in words(connection)


def test_stale_says_why_and_errors_pass():
    """A refusal is shown for a while."""
    connection = Connection()
    connection.take({"type": "status", "status": "stale", "reason": "feed_quiet"}, NOW)
    assert words(connection) == "◌ stale: feed_quiet"
    connection.take({"type": "status", "status": "live", "reason": "feed_live"}, NOW)
    connection.take({"type": "error", "message": "no such symbol", "symbols": ["X"]}, NOW)
    assert words(connection) == "● live  (no such symbol: X)"
    assert words(connection, NOW + 60) == "● live"


def test_connection_without_quotes_is_told():
    """A server may have no instruments yet. The client is connected all the same."""
    connection = Connection()
    lost = {"type": "connection", "problem": "the connection ended", "retry_in": 7.0}
    for before in {}, lost:
        if before:
            connection.take(before, NOW)
        connection.take({"type": "connected"}, NOW)
        assert words(connection) == "◌ connected, no quotes yet"
        assert not connection.is_live
    connection.take(message({"A": 1}, {"A": 1.0}), NOW)
    assert words(connection) == "● live  nothing missed"


@pytest.mark.parametrize(
    "status",
    [
        {"status": "closed", "reason": "session_closed"},
        {"status": "stale", "reason": "leader_lost"},
    ],
)
def test_quotes_do_not_hide_a_status(status):
    """Quotes also change while prices do not flow, such as by an import. The state tells it on."""
    connection = Connection()
    connection.take(message({"A": 1}, {"A": 1.0}), NOW)
    connection.take({"type": "status"} | status, NOW)
    shown = f"◌ {status['status']}: {status['reason']}"
    connection.take(message({"A": 1}, {"A": 1.0}, epoch="e"), NOW)
    connection.take(message({"A": 2}), NOW)
    assert words(connection) == shown
    lost = {"type": "connection", "problem": "the connection ended", "retry_in": 7.0}
    connection.take(lost, NOW)
    connection.take({"type": "ack", "action": "resume", "recovered": {"A": "current"}}, NOW)
    assert words(connection).startswith("● live")
    connection.take({"type": "status"} | status, NOW)
    connection.restart("connecting")
    connection.take(message({"A": 1}, {"A": 1.0}), NOW)
    assert words(connection).startswith("● live")


def test_latency_is_that_of_the_oldest_message_on_the_screen():
    """From the server's clock to the drawing. A clock that is ahead, or an old full quote, is not a
    latency.
    """
    connection = Connection()
    connection.take(message({"A": 1}, {"A": 1.0}), NOW)
    connection.take(message({"A": 2}), NOW)
    connection.shown(NOW + 0.04)
    assert words(connection).endswith("  40 ms behind")
    connection.take(message({"B": 1}, {"B": 1.0}, epoch="e", ts=int((NOW - 60) * 1e6)), NOW + 1)
    connection.shown(NOW + 1)
    assert words(connection).endswith("  40 ms behind")
    ahead = Connection()
    ahead.take(message({"A": 1}, {"A": 1.0}), NOW)
    ahead.shown(NOW - 3)
    assert words(ahead).endswith("the server's clock is 3.0 s ahead")
