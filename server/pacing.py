"""Limits the work that a task does before other tasks have their turn."""

CHECKPOINT_EVERY = 128
"""Connections served between two checkpoints. To write to so many takes about a millisecond, and to
call so many deadlines takes a few.
"""
