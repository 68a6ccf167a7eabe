"""The `quotestream` command."""

import argparse
import errno
import io
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import structlog
import trio

from server import __version__
from server.cli.argument_types import (
    AUTO,
    duration,
    role,
    supervisor_link,
    symbol,
    user,
    utf8,
    workers,
)
from server.cli.credentials import (
    BadTokenSource,
    authenticator_of,
    is_development,
    is_secret_kept,
    makes_its_own_token,
    refuse_other_machines,
    secret_of,
)
from server.cli.history import add_history
from server.cli.importing import add_import, count_of, price_text
from server.cli.life import add_life
from server.cli.publishing import add_publish
from server.cli.watching import add_watch
from server.config.environment import BadSetting
from server.config.help import describe_settings, hint_at_setting, unknown_settings
from server.config.loading import load_settings, secrets_in
from server.config.redaction import hide, redact
from server.config.settings import Settings
from server.config.values import Duration, NameList
from server.feeds.replay import ReplayError
from server.gateway.auth import Authenticator, BadKey
from server.ops.logs import configure_logging
from server.ops.tracebacks import install_hooks
from server.process.binding import BindError
from server.process.listeners import Addresses
from server.process.output import take_over_output
from server.process.signals import end_start_at_sigterm
from server.quotes.adjustment import ChangeRefused
from server.quotes.snapshot import Snapshot
from server.redis_link import BadRedisUrl
from server.store.catalogue import StoreUnavailable
from server.store.importing import BadFile
from server.workers.worker import SupervisorLink

USAGE_ERROR = 2
"""Exit code for faults that the operator can correct: an argument, a variable, a key, a busy port."""

EXPECTED = (
    BadSetting,
    BadKey,
    BindError,
    ReplayError,
    StoreUnavailable,
    BadRedisUrl,
    BadFile,
    BadTokenSource,
    ChangeRefused,
)
"""Errors that end a command with one line."""

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""The errors of a write to a full or broken disk."""

log = structlog.get_logger()


def main() -> None:
    """Run the command line. Errors: KeyboardInterrupt."""
    install_hooks()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name that the locale's encoding lacks is written in escapes, and does not end the command.
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = _parser().parse_args(sys.argv[1:] or ["serve"])
    try:
        _run(arguments)
    except EXPECTED as error:
        _fail(str(error))
    # From the nurseries of a server that was about to start.
    except BaseExceptionGroup as group:
        if group.split(KeyboardInterrupt)[1] is None:
            sys.exit(128 + signal.SIGINT)
        expected, others = group.split(lambda each: isinstance(each, EXPECTED) or _is_full(each))
        if expected is None or others:
            raise
        _fail_of(_first(expected))
    # The reader of the output, such as `head`, has closed it.
    except BrokenPipeError:
        _drop_output()
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        if not _is_full(error):
            raise
        _fail_of(error)


def _run(arguments: argparse.Namespace) -> None:
    settings = load_settings()
    hide(*secrets_in(settings))
    if arguments.run is _serve:
        _serve(arguments, settings)
        return
    _open_outputs()
    # A server tells it in its log.
    for each in unknown_settings():
        print(f"quotestream: {each}", file=sys.stderr)
    arguments.run(arguments, settings)
    # Otherwise Python writes the rest at its end, and a full disk is a traceback.
    sys.stdout.flush()


class _Parser(argparse.ArgumentParser):
    """Hides secrets in a wrong command line, and hints at the variable of what is not an option."""

    def error(self, message: str) -> NoReturn:
        _, unknown, rest = message.partition("unrecognized arguments: ")
        if unknown and (hint := hint_at_setting(*rest.split()[:2])):
            message = hint
        super().error(redact(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="quotestream", description="Live market quotes over WebSockets.")
    parser.add_argument("--version", action="version", version=f"quotestream {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser(
        "serve",
        help="run the server (the default)",
        description="Run the server. Settings are environment variables, or lines of a .env file.\n"
        "For instance: WS_PORT=9000 quotestream serve",
        epilog=describe_settings(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "--workers",
        type=workers,
        metavar="N|auto",
        help="number of processes that share the ports; auto: as the load requires; needs REDIS_URL",
    )
    command.add_argument("--worker", type=supervisor_link, help=argparse.SUPPRESS)
    command.set_defaults(run=_serve)

    command = commands.add_parser("token", help="make a token for a client")
    command.add_argument("--user", type=user, required=True, help="the user that the token names")
    command.add_argument("--ttl", type=duration, default=Duration(3600), help="1h by default")
    command.add_argument("--role", type=role, help="such as admin or publisher")
    command.add_argument(
        "--symbols",
        type=NameList.parse,
        metavar="AAPL,BTC*",
        help="the symbols that a publisher may name; without it, all",
    )
    command.set_defaults(run=_token)

    command = commands.add_parser("migrate", help="bring the database's schema up to date")
    command.set_defaults(run=_migrate)

    add_import(commands)
    add_life(commands)

    command = commands.add_parser("list", help="list the instruments there are, with last prices")
    command.add_argument(
        "query", nargs="?", type=utf8, default="", help="as in a search; by default all"
    )
    command.set_defaults(run=_list)

    command = commands.add_parser(
        "delist",
        help="remove instruments from the list",
        description="Remove instruments from the list, all or none. Subscribers on running servers are "
        "told. The last prices are kept in case they are listed again.",
    )
    command.add_argument("symbols", nargs="+", type=symbol, metavar="SYMBOL")
    command.set_defaults(run=_delist)

    add_watch(commands)
    add_publish(commands)
    add_history(commands)
    return parser


def _serve(arguments: argparse.Namespace, settings: Settings) -> None:
    supervisor: SupervisorLink | None = arguments.worker
    take_over_output()
    end_start_at_sigterm()
    configure_logging(
        settings.log_format, settings.log_level, supervisor.number if supervisor else None
    )
    if is_development(settings):
        refuse_other_machines(settings)
    secret = secret_of(settings)
    authenticator = authenticator_of(settings, secret)
    say_hello = partial(_say_hello, settings, authenticator)
    if not supervisor:
        _warn_of_unknown_settings()
    if arguments.workers:
        from server.workers.host import supervise

        # Otherwise each worker would make one up where it cannot be kept.
        environment = {"JWT_SECRET": secret} if is_development(settings) else {}
        size = None if arguments.workers == AUTO else arguments.workers
        sys.exit(trio.run(supervise, settings, size, environment, say_hello))
    # A supervisor needs none of this: it stays small.
    from server.app.serve import serve

    on_started = (lambda _: None) if supervisor else say_hello
    load = partial(_load, settings, secret)
    trio.run(serve, settings, authenticator, load, on_started, supervisor)


def _load(started_with: Settings, secret: str) -> tuple[Settings, Authenticator]:
    """Read settings and keys anew. A development secret stays. Errors: BadSetting, BadKey."""
    settings = load_settings()
    hide(*secrets_in(settings))
    _warn_of_unknown_settings()
    if not is_development(settings):
        secret = settings.jwt_secret
    elif not is_development(started_with):
        raise BadKey("neither JWT_SECRET nor JWT_PUBLIC_KEY is set any more")
    return settings, authenticator_of(settings, secret)


def _warn(settings: Settings) -> None:
    """Warn about settings that are not meant for production."""
    if is_development(settings):
        log.warning("JWT_SECRET is not set: a random development secret is used, for tests only")


def _warn_of_unknown_settings() -> None:
    for each in unknown_settings():
        log.warning(each)


def _say_hello(settings: Settings, authenticator: Authenticator, addresses: Addresses) -> None:
    _warn(settings)
    print(f"page     {addresses.http}/")
    print(f"quotes   {addresses.quotes}")
    operators = "/health /metrics /docs"
    if addresses.ops:
        print(f"HTTP     {addresses.http}/healthz /readyz")
        print(f"ops      {addresses.ops}{operators}")
    else:
        print(f"HTTP     {addresses.http}/healthz /readyz {operators}")
    if is_development(settings):
        token = authenticator.development_token()
        # In the environment it is hidden from other users, unlike an argument.
        variable = "" if makes_its_own_token(settings) else f"QUOTESTREAM_TOKEN={token} "
        print(f"token    {token}")
        print(f"connect  {variable}{_own_command()} watch AAPL MSFT TSLA --url {addresses.quotes}")
        print(f"prices   {_origin_of_prices(settings)}")
    sys.stdout.flush()


_ORIGINS = {
    "push": "from publishers",
    "simulator": "simulated ones",
    "stream": "from a Redis Stream",
}


def _origin_of_prices(settings: Settings) -> str:
    """Say where prices come from: nobody should take simulated ones for today's market."""
    if settings.feed.replay_path:
        return f"recorded trades of {settings.feed.replay_path}"
    if settings.feed == "bus":
        return "other instances, through Redis"
    if settings.feed != "simulator":
        return ", ".join(_ORIGINS.get(feed, f"live from {feed}") for feed in settings.feed.feeds)
    shipped = settings.catalogue == "shipped" and not settings.database_url
    base = "base prices of March 2017 or invented" if shipped else "your instruments' base prices"
    return f"simulated from {base}, not today's"


def _own_command() -> Path:
    """Return the path of `quotestream`, relative to the working folder if that still exists."""
    try:
        python = os.path.relpath(sys.executable)
    except OSError:
        python = sys.executable
    return Path(python).with_name("quotestream")


def _token(arguments: argparse.Namespace, settings: Settings) -> None:
    if is_development(settings) and not is_secret_kept():
        raise BadKey(
            "no server would take the token: set JWT_SECRET, as no secret can be kept here"
        )
    authenticator = authenticator_of(settings, secret_of(settings))
    print(authenticator.sign(arguments.user, arguments.ttl, arguments.role, arguments.symbols))


def _migrate(_: argparse.Namespace, settings: Settings) -> None:
    from server.app.options import store_options
    from server.store.commands import migrate

    configure_logging(settings.log_format, settings.log_level)
    applied = trio.run(migrate, store_options(settings))
    print("\n".join(f"applied {name}" for name in applied) or "nothing to do")


def _list(arguments: argparse.Namespace, settings: Settings) -> None:
    from server.app.options import store_options
    from server.store.commands import list_instruments

    configure_logging(settings.log_format, settings.log_level)

    def show(rows: Sequence[Snapshot]) -> None:
        for each in rows:
            kind, price = each.instrument.type, price_text(each.price, each.price_decimals)
            print(f"{each.symbol:<12} {kind:<6} {price:>14}  {each.name}")

    found = trio.run(list_instruments, store_options(settings), arguments.query, show)
    print(count_of(found), file=sys.stderr)


def _delist(arguments: argparse.Namespace, settings: Settings) -> None:
    from server.app.options import store_options
    from server.store.commands import delist

    configure_logging(settings.log_format, settings.log_level)
    symbols = list(dict.fromkeys(arguments.symbols))
    if missing := trio.run(delist, store_options(settings), symbols):
        _fail(f"not listed: {', '.join(missing)}; nothing was changed")
    print(f"{count_of(len(symbols))} delisted")


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _is_full(error: BaseException) -> bool:
    """Return whether there was no room for the output."""
    return isinstance(error, OSError) and error.errno in NO_ROOM and error.filename is None


def _open_outputs() -> None:
    """Write nowhere if an output is closed, as by a shell's `>&-`: Python has None in its place."""
    sys.stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    sys.stderr = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def _drop_output() -> None:
    """Write the rest of the output nowhere, as Python tries again at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail_of(error: BaseException) -> NoReturn:
    if isinstance(error, OSError) and _is_full(error):
        _drop_output()
        _fail(f"the output cannot be written: {error.strerror}")
    _fail(str(error))


def _fail(message: str) -> NoReturn:
    print(f"quotestream: {redact(message)}", file=sys.stderr)
    sys.exit(USAGE_ERROR)
