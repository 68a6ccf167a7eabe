"""The settings, and the list of secrets that no output may show."""
