"""What a quote is and how its changes are written down: pure values, no I/O, no trio."""
