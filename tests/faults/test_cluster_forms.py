"""Clients of all forms and selections at several instances and workers get the same quotes."""

from contextlib import ExitStack

from tests.faults.cluster import two_instances
from tests.forms import FORMS, selected
from tests.gateway.form_client import FormClient
from tests.processes import ServerProcess
from tests.workers.host import Host

PRICE = "current_price"

SELECTIONS = ("", PRICE, "volume,last_updated,symbol")


def clients_at(server: ServerProcess, stack: ExitStack) -> list[FormClient]:
    """Connect a client of each form and selection."""
    wishes = [(form, fields) for form in FORMS for fields in SELECTIONS]
    return [stack.enter_context(FormClient(server, form, fields)) for form, fields in wishes]


def check(clients: list[FormClient], plain: list[FormClient]) -> int:
    """Compare every version with that of the JSON clients. Return the number of comparisons."""
    truth = {key: quote for client in plain for key, quote in client.seen.items()}
    compared = 0
    for client in clients:
        for key in client.seen.keys() & truth.keys():
            assert client.seen[key] == selected(truth[key], client.fields), key
            compared += 1
    return compared


def test_every_form_at_two_instances(tmp_path, redis):
    """A follower encodes its own clients' forms, and a client of any comes back at either."""
    with two_instances(tmp_path, redis.url) as (_, leader, follower, _, _), ExitStack() as stack:
        clients = clients_at(leader, stack) + clients_at(follower, stack)
        for client in clients:
            client.wait(6)
        plain = [client for client in clients if (client.form, client.fields) == ("json", "")]
        assert check(clients, plain) > 3 * len(clients)
        for before in clients[: len(FORMS) * len(SELECTIONS)]:
            position = before.position()
            after = FormClient(follower, before.form, before.fields, resume=position)
            stack.enter_context(after)
            after.go_on_from(before)
            after.wait(2)
            assert after.control[0]["recovered"]["AAPL"] in ("patches", "current")


def test_clients_outlive_their_leader(tmp_path, redis):
    """In the new epoch each client gets the full quote in its form, and goes on from there."""
    with two_instances(tmp_path, redis.url) as (_, leader, follower, _, _), ExitStack() as stack:
        clients = clients_at(follower, stack)
        for client in clients:
            client.wait(2)
        epoch = clients[0].epoch
        leader.process.kill()
        for client in clients:
            while client.epoch == epoch:
                client.receive()
            client.wait(client.changes + 2)
        assert len({client.epoch for client in clients}) == 1
        assert check(clients, clients[:1])


def test_every_form_at_workers(tmp_path, redis):
    """Workers share a port, and each has its own views."""
    with Host(tmp_path, redis) as host, ExitStack() as stack:
        clients = clients_at(host, stack)
        for client in clients:
            client.wait(4)
        assert check(clients, clients[:1])
