"""The settings, the secrets that no output may show, and the folder of the kept state."""
