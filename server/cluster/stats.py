"""Numbers of the cluster, in plain integers; only the metrics read them."""

from dataclasses import dataclass, field

from server.invalid import InvalidRecords


@dataclass(slots=True)
class ClusterStats:
    """Owned by the instance's member.

    `batches_received` and `moves_received` come from the leader. `dropped`: batches for which there was
    no room. `gaps`: how often the instance missed batches and read the hash instead. `fenced`: its own
    batches that Redis refused as an old leader's. `elections`: the number of its elections.
    `round_trip`: the seconds of the last probe.
    """

    batches_received: int = 0
    batches_published: int = 0
    moves_received: int = 0
    moves_published: int = 0
    dropped: int = 0
    gaps: int = 0
    fenced: int = 0
    elections: int = 0
    round_trip: float = 0.0
    invalid: InvalidRecords = field(default_factory=InvalidRecords)
