"""Where instruments are kept."""
