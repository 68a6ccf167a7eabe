"""From trades to sockets: prices flow one way, are encoded once, and no client slows another."""
