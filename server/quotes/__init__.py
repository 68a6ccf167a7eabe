"""Quotes, their changes and the messages that carry them: pure values, no I/O, no trio."""
