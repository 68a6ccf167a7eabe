"""The ports, signals, output and memory of each server process and each supervisor."""
