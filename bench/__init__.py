"""Measures the server; nothing here is asserted by a test of the server."""
