"""Tests of the `quotestream` command and its process."""
