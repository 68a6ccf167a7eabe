"""The `quotestream` command: its arguments, its subcommands, and the tokens they use."""
