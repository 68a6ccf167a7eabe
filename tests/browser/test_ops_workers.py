"""The operators' page of a machine with workers, each of which holds a part of the clients."""

from contextlib import ExitStack

from playwright.sync_api import expect

from tests.browser.test_ops import open_page, row
from tests.gateway.wire import Client
from tests.ops.as_operator import clients
from tests.processes import eventually, make_token
from tests.workers.host import Host
from tests.workers.test_operators import CROWD


def test_clients_of_each_worker_are_drained(tmp_path, redis, page):
    """The page shows who holds a client. A drain reaches it there, whichever worker serves the page."""
    with Host(tmp_path, redis, 2) as host, ExitStack() as stack:
        held = {
            f"crowd{number:02}": stack.enter_context(
                Client(host, "AAPL", token=make_token(f"crowd{number:02}"))
            )
            for number in range(CROWD)
        }
        eventually(lambda: len(clients(host)) == CROWD)
        found = {each["worker"]: each["user"] for each in clients(host)}
        assert set(found) == {1, 2}
        open_page(page, host)
        for worker, user in found.items():
            expect(row(page, user).locator(".worker")).to_have_text(str(worker))
            page.get_by_role("button", name=f"Drain {user}").click()
            page.get_by_role("dialog").get_by_role("button", name="Drain").click()
            code, messages = held[user].read_to_end()
            assert (code, messages[-1]["type"]) == (1001, "reconnect")
            host.await_event("admin", action="drain", client_user=user, user="olivia")
            expect(row(page, user)).to_be_hidden()
