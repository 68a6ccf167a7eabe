"""Measures the server: `python -m bench --help`."""
