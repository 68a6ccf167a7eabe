"""Workers that die, hang and are told to stop, under a supervisor that may die, too."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from websockets.exceptions import ConnectionClosed

from tests.cli.test_stop import AT_ONCE, STOP_LIMIT, stubborn_clients
from tests.gateway.wire import Client, is_move
from tests.processes import STOP_TIMEOUT
from tests.stopwatch import Stopwatch
from tests.workers.host import Host, end_of, is_alive

CROWD = 16
"""Clients. The kernel sends all of them to one of two workers once in 30,000 runs."""


@contextmanager
def crowd(host: Host, size: int = CROWD) -> Iterator[list[Client]]:
    """Connect clients that watch one symbol; their connections may be cut."""
    with ExitStack() as stack:
        yield [stack.enter_context(Client(host, "AAPL")) for _ in range(size)]


def survivors(clients: list[Client]) -> list[Client]:
    """Return the clients whose connection goes on; each of them gets two more moves."""
    alive = []
    for client in clients:
        try:
            # The answer comes after all that a worker that died has sent before.
            assert client.is_answered()
            for _ in range(2):
                while not is_move(client.receive()):
                    pass
        except ConnectionClosed:
            continue
        alive.append(client)
    return alive


def test_killed_worker_costs_only_its_own_clients_a_reconnection(tmp_path, redis):
    """The other clients' prices go on, the port answers all the time, and the worker comes back."""
    with Host(tmp_path, redis, 2, PRICE_UPDATE_INTERVAL="100ms") as host, crowd(host) as clients:
        pid = host.pid(1)
        host.kill(1)
        left = survivors(clients)
        assert 0 < len(left) < CROWD
        end = host.await_event("worker ended", worker=1)
        assert end["signal"] == "SIGKILL"
        with crowd(host) as back:
            assert len(survivors(back)) == CROWD
        host.await_event("worker serves", 2, worker=1)
        assert not is_alive(pid), "the dead are to be reaped"
        with crowd(host) as back:
            assert len(survivors(back)) == CROWD
        assert len(survivors(left)) == len(left)


def test_crash_loop_is_slowed_down_and_said(tmp_path, redis):
    """Each early end doubles the wait for the next start, and has a line with its cause."""
    with Host(tmp_path, redis, 2) as host:
        for times in (1, 2, 3):
            host.kill(2)
            host.await_event("worker serves", times + 1, worker=2)
        ends = host.events("worker ended")
        assert {(line["worker"], line["signal"]) for line in ends} == {(2, "SIGKILL")}
        assert [line["after"] for line in host.events("worker is started anew")] == [0.5, 1, 2]
        assert len(host.events("worker started", worker=1)) == 1


def test_frozen_worker_is_killed_and_replaced(tmp_path, redis):
    """A silent worker is replaced, as the kernel goes on sending clients to it."""
    with Host(tmp_path, redis, 2, WORKER_TIMEOUT="3s") as host:
        host.kill(1, signal.SIGSTOP)
        assert host.await_event("worker is silent")["worker"] == 1
        host.await_event("worker serves", 2, worker=1)
        assert len(host.events("worker is silent")) == 1


@pytest.mark.parametrize("whom", ["all", "the supervisor"])
def test_pause_is_no_silence(tmp_path, redis, whom):
    """The supervisor kills no worker after the machine stood still, or after it heard nothing
    itself.
    """
    with Host(tmp_path, redis, 2, WORKER_TIMEOUT="2s", PRICE_UPDATE_INTERVAL="100ms") as host:
        paused = [host.process.pid, *(host.pids if whom == "all" else [])]
        for pid in paused:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(3)
        for pid in paused:
            os.kill(pid, signal.SIGCONT)
        for _ in range(3):  # by then the supervisor, which answers this, is awake
            assert host.metric('market_data_workers{state="serving"}') == 2
        assert not host.events("worker is silent")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_all_workers_in_time(tmp_path, redis, number):
    """Every client is sent away as by a server without workers. Stubborn clients do not delay the
    stop.
    """
    with Host(tmp_path, redis, 2, PRICE_UPDATE_INTERVAL="100ms") as host:
        with crowd(host) as clients, stubborn_clients(host):
            watch = Stopwatch(host.process.pid)
            # As a terminal does at Ctrl-C: to all of the group, in which the workers are not.
            os.killpg(host.process.pid, number)
            for client in clients:
                code, messages = client.read_to_end()
                assert code == 1001
                assert messages[-1]["type"] == "reconnect"
            assert watch.wait_for_end(host.process, STOP_TIMEOUT) == 0
            assert watch.seconds < STOP_LIMIT
        assert not any(is_alive(pid) for pid in host.pids)
        assert "Traceback" not in host.log.read_text()
        assert not any(line["level"] == "error" for line in host.log_lines())


def test_second_signal_ends_all_at_once(tmp_path, redis):
    """A second signal ends the supervisor and its workers at once."""
    with Host(tmp_path, redis, 2) as host, stubborn_clients(host):
        host.process.send_signal(signal.SIGTERM)
        host.await_event("stopping", 3)
        assert host.stop() == 128 + signal.SIGTERM
        assert host.stop_seconds < AT_ONCE
        end_of(host.pids, AT_ONCE)


def test_stop_while_a_worker_starts_or_waits_to_be_started(tmp_path, redis):
    """A worker that starts, and one that waits for its start, do not delay the stop."""
    with Host(tmp_path, redis, 3) as host:
        host.kill(1)
        host.await_event("worker started", 2, worker=1)
        for _ in range(3):
            host.kill(2)
            restarts = len(host.events("worker started", worker=2))
            host.await_event("worker started", restarts + 1, worker=2)
        host.kill(2)
        host.await_event("worker ended", 4, worker=2)
        assert host.stop() == 0
        assert host.stop_seconds < AT_ONCE
        end_of(host.pids, AT_ONCE)


def test_workers_end_with_their_supervisor(tmp_path, redis):
    """A killed supervisor tells its workers nothing. They send their clients away and end."""
    with Host(tmp_path, redis, 2) as host, crowd(host) as clients:
        host.process.kill()
        for client in clients:
            code, messages = client.read_to_end()
            assert code == 1001
            assert messages[-1]["type"] == "reconnect"
        assert end_of(host.pids, STOP_LIMIT) < STOP_LIMIT
        host.await_event("the supervisor is gone", 2)
        assert len(host.events("the supervisor is gone")) == 2


def test_frozen_worker_does_not_hold_the_stop_up(tmp_path, redis):
    """A worker that does not end within the promised ten seconds is killed; the exit code tells."""
    with Host(tmp_path, redis, 2) as host:
        host.kill(1, signal.SIGSTOP)
        assert host.stop() == 1
        assert host.stop_seconds < STOP_LIMIT + AT_ONCE
        end_of(host.pids, AT_ONCE)


def test_leader_s_signal_is_passed_on(tmp_path, redis):
    """SIGUSR1 ends no worker."""
    with Host(tmp_path, redis, 2, PRICE_UPDATE_INTERVAL="100ms") as host:
        host.process.send_signal(signal.SIGUSR1)
        with crowd(host) as clients:
            assert len(survivors(clients)) == CROWD
        assert not host.events("worker ended")
