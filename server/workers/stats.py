"""Numbers of a supervisor; only the metrics read them."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from server.workers.scaler import Decision, Load


@dataclass(slots=True)
class SupervisorStats:
    """Owned by the supervisor.

    `restarts`: processes that replaced one that ended by itself. `decisions` are the scaler's. `load`
    is the load that the scaler saw last, None without a scaler.
    """

    restarts: int = 0
    rolls: Counter[Literal["done", "failed"]] = field(default_factory=Counter)
    decisions: Counter[Decision] = field(default_factory=Counter)
    load: Load | None = None
