"""Tests of `server/ops`."""
