"""The Python client: keeps a copy of the server's quotes by applying its patches."""
