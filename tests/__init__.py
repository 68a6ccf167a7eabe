"""Tests from outside where they can be: a socket, a process, a terminal."""
