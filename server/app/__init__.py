"""One server: the settings of each package, the tree of tasks, and the stop."""
