"""Many processes: workers on one machine, which a supervisor starts, rolls and scales."""
