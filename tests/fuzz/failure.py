"""What ends a fuzzer's run."""


class FuzzFailure(Exception):
    """What the server did that is not documented, and with which input."""
