"""Decides whether a load balancer should send clients to this instance, for `/readyz`."""

from server.cluster.member import Member
from server.fanout.hub import Hub
from server.gateway.gateway import Gateway
from server.store.store import Store


class Readiness:
    """`asked`: whether `/readyz` was ever requested.

    A full pool does not make an instance unready. The server then answers 503 `at_capacity` with
    `Retry-After`. If all instances were full and unready, clients would get the load balancer's own
    answer. The end of a feed does not either: the last prices are the same on every instance.
    """

    def __init__(self, gateway: Gateway, hub: Hub, store: Store, member: Member | None) -> None:
        self.asked = False
        self._gateway = gateway
        self._hub = hub
        self._store = store
        self._member = member

    def ask(self) -> list[str]:
        """Return the reasons to send no client here now; empty if the instance is ready."""
        self.asked = True
        reasons = self._gateway.unready() + (self._member.unready() if self._member else [])
        # The server serves symbols in memory without the database.
        return reasons if self._hub.topics else reasons + self._store.unready()
