"""Tests of `server/quotes`."""
