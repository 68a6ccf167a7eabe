"""The errors of the bus. No error of redis-py leaves the bus."""


class BusLost(Exception):
    """Redis did not answer. It may still have done the operation."""


class BusRefused(BusLost):
    """Redis did not get the operation, or did not do it."""


class Fenced(Exception):
    """Redis refused to publish: there is a newer epoch, or Redis has forgotten everything."""


class Disagreement(Exception):
    """The leader is about to publish a symbol for the first time, but the hash has a newer version."""
