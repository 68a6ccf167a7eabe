"""The `quotestream` command, also as `python -m server`."""

import gc
import signal
import sys


def main() -> None:
    """Run the command. Ctrl-C ends it without a traceback, also during its imports (0.3 s)."""
    if sys.argv[1:2] in ([], ["serve"]):
        # They would end a server that has just started. The kernel keeps them until it can react.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGUSR1})
    try:
        # Otherwise the collector looks at the modules again and again: a tenth of a start.
        gc.disable()
        from server.cli import commands

        gc.freeze()
        gc.enable()
        commands.main()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
