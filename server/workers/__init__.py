"""A machine's workers: the supervisor that starts them, and their conversation with it."""
