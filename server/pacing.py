"""How much work a task does before it lets the other tasks have their turn."""

CHECKPOINT_EVERY = 128
"""Connections served between two checkpoints. Writing to as many takes about a millisecond, calling
as many deadlines a few.
"""
