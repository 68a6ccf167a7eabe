"""More prices than the machine can deliver: all clients get fewer updates, and none is refused."""

from tests.faults.test_slow_clients import MuteClient
from tests.gateway.wire import Client, new_user
from tests.processes import ServerProcess, eventually

CROWD = 60


def test_overload_conflates_for_all_and_ends(tmp_path):
    """Five hundred symbols move fifty times a second. The interval grows, clients are told, and all
    are served. Once the crowd is gone the interval shrinks, and every move is sent again.
    """
    with ServerProcess(tmp_path, PRICE_UPDATE_INTERVAL="20ms") as server:
        interval = "market_data_conflation_interval_seconds"
        crowd = [MuteClient(server, "*", new_user()) for _ in range(CROWD)]
        try:
            with Client(server, "AAPL") as client:
                client.hears_of_overload = True
                eventually(lambda: server.metric(interval) > 0, timeout=30)
                while (message := client.receive())["type"] != "status":
                    pass
                assert message["status"] == "live"
                assert message["interval"] > 0
                with Client(server, "MSFT") as late:
                    late.hears_of_overload = True
                    while (message := late.receive())["type"] != "status":
                        pass
                    assert message["interval"] > 0
                assert (
                    server.metric('market_data_connections_rejected_total{reason="at_capacity"}')
                    == 0
                )
                for mute in crowd:
                    mute.socket.close()
                eventually(lambda: server.metric(interval) == 0, timeout=60)
                while client.receive().get("interval") != 0:
                    pass
                client.hears_of_overload = False  # another program may keep the machine busy
                client.receive()
                for _ in range(10):
                    client.move()
        finally:
            for mute in crowd:
                mute.socket.close()
        assert server.await_event("conflation changed")["was"] == 0
        server.await_event("conflation changed", interval=0)
