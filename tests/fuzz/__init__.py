"""Fuzzers: `scripts/python -m tests.fuzz` throws frames at sessions, with `--http` requests at a server."""
