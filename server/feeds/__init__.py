"""Where prices come from. A feed is a coroutine that sends `Trade`s until it ends or is cancelled."""
