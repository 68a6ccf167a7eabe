"""The exception that ends a fuzzer's run."""


class FuzzFailure(Exception):
    """The server did something that is not documented; the message holds the input."""
