"""Numbers of the cluster, in plain integers; only the metrics read them."""

from dataclasses import dataclass, field

from server.invalid import InvalidRecords


@dataclass(slots=True)
class ClusterStats:
    """Owned by the instance's member.

    `batches_received` and `moves_received` are the leader's. `dropped`: batches for which there was no
    room. `gaps`: how often batches were missed and the hash was read instead. `fenced`: batches of this
    instance that Redis refused as an old leader's. `elections`: how often it was elected. `round_trip`:
    the seconds of the last probe.
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
