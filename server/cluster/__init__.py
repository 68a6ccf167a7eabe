"""Many instances, one line of prices: the bus, the election of who makes prices, what the others do."""
