"""One server: what the settings mean to each package, its tree of tasks, and how it stops."""
