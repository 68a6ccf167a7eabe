"""Dead connections make room for their user's new one. Those that answer a ping do not."""

import pytest

from tests.gateway.wire import Client, RawClient, head, new_user, refusal, target
from tests.processes import ServerProcess, eventually, make_token


@pytest.fixture
def pair(tmp_path):
    """A server with two places for each user and a slow heartbeat."""
    with ServerProcess(
        tmp_path, WS_MAX_CONNECTIONS_PER_USER="2", WS_PING_INTERVAL="10m"
    ) as process:
        yield process


def connections(server: ServerProcess) -> float:
    return server.metric('market_data_connections{state="active"}')


def test_dead_connection_is_evicted_for_a_new_one(pair):
    """Of two connections, the one that does not answer a ping ends with 4408, and the new one opens."""
    token = make_token(new_user())
    with RawClient(pair, head(target(None, token))) as dead, Client(pair, token=token) as alive:
        dead.read_head()
        eventually(lambda: connections(pair) == 2)
        with Client(pair, token=token) as new:
            assert new.is_answered()
            assert alive.is_answered()
            assert dead.is_over()
        assert pair.metric('market_data_connections_closed_total{code="4408"}') == 1


def test_living_connections_are_not_evicted(pair):
    """Clients that answer keep their places: the third connection is refused."""
    token = make_token(new_user())
    with Client(pair, token=token) as one, Client(pair, token=token) as two:
        for _ in range(3):
            assert refusal(pair.url(token=token)).verdict == (429, "too_many_connections")
        assert one.is_answered()
        assert two.is_answered()


def test_other_users_are_not_asked(pair):
    """A user without a free place costs only its own dead connections."""
    token = make_token(new_user())
    with RawClient(pair):
        dead = [RawClient(pair, head(target(None, token))) for _ in range(2)]
        for client in dead:
            client.read_head()
        eventually(lambda: connections(pair) == 3)
        with Client(pair, token=token) as new:
            assert new.is_answered()
        assert connections(pair) >= 2
        assert pair.metric('market_data_connections_closed_total{code="4408"}') == 1
        for client in dead:
            client.socket.close()
