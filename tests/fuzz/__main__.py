"""Runs a fuzzer: `scripts/python -m tests.fuzz --inputs 1000000`; `--http` is for the HTTP port."""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import trio

from tests.fuzz.failure import FuzzFailure
from tests.fuzz.http import check_server, fuzz_http, talk
from tests.fuzz.sessions import fuzz
from tests.processes import SECRET, WITHOUT_BUDGETS, ServerProcess


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="scripts/python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="1000000 by default")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="the time by default")
    parser.add_argument("--http", action="store_true", help="requests to the HTTP port of a server")
    parser.add_argument(
        "--url",
        help=f"the HTTP port of a server that runs with JWT_SECRET={SECRET!r}; else one is started",
    )
    parser.add_argument("--connection", type=int, help="repeat one conversation of the seed only")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    try:
        if options.http:
            fuzz_server(options)
        else:
            fuzz_sessions(options)
    except* FuzzFailure as failures:
        sys.exit(f"fuzz: {first(failures)}")


def first(failures: BaseExceptionGroup[FuzzFailure]) -> BaseException:
    """Return the first of the failures; several may have happened at once."""
    failure: BaseException = failures
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure


def fuzz_sessions(options: argparse.Namespace) -> None:
    """Throw frames. Errors: FuzzFailure."""
    outcome = trio.run(fuzz, options.inputs, options.seed)
    report(outcome.seen, options.inputs, outcome.rate, outcome.before, outcome.after)


def fuzz_server(options: argparse.Namespace) -> None:
    """Throw requests at the named server, or at one that is started for it. Errors: FuzzFailure."""
    if options.url:
        url = urlsplit(options.url)
        throw(options, (str(url.hostname), url.port or 80))
        return
    with TemporaryDirectory() as folder, ServerProcess(Path(folder), **WITHOUT_BUDGETS) as server:
        try:
            throw(options, server.http_address)
        finally:
            check_server(server)


def throw(options: argparse.Namespace, address: tuple[str, int]) -> None:
    """Throw all inputs, or those of one conversation. Errors: FuzzFailure."""
    if options.connection is not None:
        seen: Counter[str] = Counter()
        trio.run(talk, address, options.seed, options.connection, seen)
        print(dict(seen))
        return
    outcome = trio.run(fuzz_http, address, options.inputs, options.seed)
    report(outcome.seen, outcome.inputs, outcome.rate, outcome.before, outcome.after)


def report(seen: Mapping[str, int], inputs: int, rate: float, before: int, after: int) -> None:
    """Print the kinds of answers, the rate and the memory."""
    for what, number in sorted(seen.items(), key=lambda item: -item[1]):
        print(f"{number:>10}  {what}")
    print(
        f"{inputs:,} inputs answered as documented, {rate:,.0f} a second, "
        f"{before / 1e6:.1f} MB resident before, {after / 1e6:.1f} MB after"
    )


if __name__ == "__main__":
    main()
