"""What can go wrong with the bus. No error of redis-py gets past it."""


class BusLost(Exception):
    """Redis did not answer; it may have done the operation all the same."""


class Fenced(Exception):
    """Redis refused to publish: there is a newer epoch, or Redis has forgotten everything."""


class Disagreement(Exception):
    """The hash has a newer version of a symbol that this leader is about to publish first."""
