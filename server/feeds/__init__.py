"""Feeds, the sources of prices. A feed is a coroutine that sends trades until it ends."""
