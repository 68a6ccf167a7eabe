"""Whether a load balancer should send clients to this instance: what `/readyz` says."""

from server.cluster.member import Member
from server.fanout.hub import Hub
from server.gateway.gateway import Gateway
from server.store.store import Store


class Readiness:
    """`asked`: whether `/readyz` was ever requested.

    A full pool does not make an instance unready. A client that meets it gets 503 `at_capacity` and a
    `Retry-After`. If all instances were full and unready, it would get the load balancer's own answer.
    Nor does a feed that has ended: the last prices are the same on every instance.
    """

    def __init__(self, gateway: Gateway, hub: Hub, store: Store, member: Member | None) -> None:
        self.asked = False
        self._gateway = gateway
        self._hub = hub
        self._store = store
        self._member = member

    def ask(self) -> list[str]:
        """Return why no client should be sent here now; empty if one should."""
        self.asked = True
        reasons = self._gateway.unready() + (self._member.unready() if self._member else [])
        # What is in memory is served without the database.
        return reasons if self._hub.topics else reasons + self._store.unready()
