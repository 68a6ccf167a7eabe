"""Many instances with the same prices: they elect a leader and share its moves through Redis."""
