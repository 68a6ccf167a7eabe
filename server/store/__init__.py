"""The store: the database of instruments and last prices, the cache before it, and the loader."""
