"""Many processes: instances that share one line of prices, and the workers of one machine."""
