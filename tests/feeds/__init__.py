"""Tests of `server/feeds`."""
