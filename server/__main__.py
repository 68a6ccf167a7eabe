"""The `quotestream` command, also as `python -m server`."""

import gc
import signal
import sys
from importlib import import_module
from types import ModuleType
from typing import cast

NOT_FOR_STRUCTLOG = ("rich", "greenlet")
"""Modules that structlog imports if they are installed, 4 MB for what the server does not use."""


def main() -> None:
    """Run the command. Ctrl-C ends it without a traceback, also during its imports (0.3 s)."""
    if sys.argv[1:2] in ([], ["serve"]):
        # They would end a server that has just started. The kernel keeps them until it can react.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGUSR1})
    try:
        # Otherwise the collector looks at the modules again and again: a tenth of a start.
        gc.disable()
        import_structlog()
        from server.cli import commands

        gc.freeze()
        gc.enable()
        commands.main()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def import_structlog() -> None:
    """Import it as if NOT_FOR_STRUCTLOG were not installed: None forbids an import (Python's
    reference, "The module cache"). Later imports of them succeed.
    """
    absent = set(NOT_FOR_STRUCTLOG) - set(sys.modules)
    sys.modules |= dict.fromkeys(absent, cast(ModuleType, None))
    import_module("structlog")
    for name in absent:
        del sys.modules[name]


if __name__ == "__main__":
    main()
