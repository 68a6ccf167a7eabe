"""A machine's workers: the supervisor that starts them, and the channel between both."""
