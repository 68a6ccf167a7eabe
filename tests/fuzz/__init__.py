"""Fuzzers: `scripts/python -m tests.fuzz` sends frames to sessions, or with `--http` HTTP requests."""
