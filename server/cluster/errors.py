"""What goes wrong with the bus; no driver's error gets past."""


class BusLost(Exception):
    """Redis did not answer; whether it has done what it was asked to is not known."""


class Fenced(Exception):
    """Redis refused to publish: there is a newer epoch, or Redis has forgotten all."""


class Disagreement(Exception):
    """The hash has a newer version of what this leader is about to tell of for the first time."""


class BadBusUrl(Exception):
    """REDIS_URL is none; the message says so in one line."""
