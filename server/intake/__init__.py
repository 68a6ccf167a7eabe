"""The rules for prices from outside: pure, with the clock handed in. Nothing here does I/O."""
