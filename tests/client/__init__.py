"""Tests of `server/client`."""
