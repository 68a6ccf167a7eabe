"""What each server process and each supervisor does with its ports, signals, output and memory."""
