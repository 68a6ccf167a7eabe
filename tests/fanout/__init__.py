"""Tests of `server/fanout`."""
