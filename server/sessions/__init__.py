"""Trading sessions: when a market opens and closes. Pure: no I/O but the zone files, no trio."""
