"""quotestream: live market quotes over WebSockets, on trio."""

__version__ = "0.1.0"
