"""Tests that break real servers while others use them."""
