"""The `quotestream` command."""

import argparse
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

import structlog
import trio

from server import __version__
from server.app.options import store_options
from server.app.serve import serve
from server.cli.credentials import (
    BadTokenSource,
    authenticator_of,
    development_token,
    is_development,
    is_word,
    makes_its_own_token,
    secret_of,
    token_for_watch,
)
from server.config.redaction import hide, redact
from server.config.settings import (
    BadSetting,
    Duration,
    Settings,
    describe_settings,
    load_settings,
    secrets_in,
)
from server.feeds.replay import ReplayError
from server.gateway.auth import Authenticator, BadKey
from server.gateway.claims import MAX_NAME_LENGTH, is_name
from server.ops.logs import configure_logging
from server.ops.tracebacks import install_hooks
from server.process.binding import BindError
from server.process.listeners import Addresses
from server.process.output import take_over_output
from server.process.signals import end_start_at_sigterm
from server.quotes.instrument import normalize_symbol
from server.redis_link import BadRedisUrl
from server.store.catalogue import StoreUnavailable
from server.store.embedded import load_instruments
from server.store.importing import BadFile, read_instruments
from server.store.store import delist, import_instruments, migrate
from server.workers.host import supervise
from server.workers.worker import SupervisorLink

USAGE_ERROR = 2
"""Exit code for whatever the operator can mend: an argument, a variable, a key, a busy port."""

AUTO = "auto"
"""As many workers as it takes."""

EXPECTED = (
    BadSetting,
    BadKey,
    BindError,
    ReplayError,
    StoreUnavailable,
    BadRedisUrl,
    BadFile,
    BadTokenSource,
)
"""What ends a command with one line."""

log = structlog.get_logger()


def main() -> None:
    """Run the command line. Errors: KeyboardInterrupt."""
    install_hooks()
    arguments = _parser().parse_args(sys.argv[1:] or ["serve"])
    try:
        settings = load_settings()
        hide(*secrets_in(settings))
        arguments.run(arguments, settings)
    except EXPECTED as error:
        _fail(str(error))
    except BaseExceptionGroup as group:  # from the nurseries of a server that was about to start
        if group.split(KeyboardInterrupt)[1] is None:
            sys.exit(128 + signal.SIGINT)
        expected, others = group.split(EXPECTED)
        if expected is None or others:
            raise
        _fail(str(_first(expected)))
    except BrokenPipeError:  # who read the output, such as `head`, has had enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)


class _Parser(argparse.ArgumentParser):
    """Quotes no secret that stands in the wrong place of a command line."""

    def error(self, message: str) -> NoReturn:
        super().error(redact(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="quotestream", description="Live market quotes over WebSockets.")
    parser.add_argument("--version", action="version", version=f"quotestream {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser(
        "serve",
        help="run the server (the default)",
        description="Run the server. It is configured by environment variables or a .env file:",
        epilog=describe_settings(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "--workers",
        type=_workers,
        metavar="N|auto",
        help="processes that share the ports, or as many as it takes; needs REDIS_URL",
    )
    command.add_argument("--worker", type=_supervisor_link, help=argparse.SUPPRESS)
    command.set_defaults(run=_serve)

    command = commands.add_parser("token", help="make a token for a client")
    command.add_argument("--user", type=_user, required=True, help="whom the token is for")
    command.add_argument("--ttl", type=_duration, default=Duration(3600), help="1h by default")
    command.add_argument("--role", type=_role, help="for instance admin")
    command.set_defaults(run=_token)

    command = commands.add_parser("migrate", help="bring the database's schema up to date")
    command.set_defaults(run=_migrate)

    command = commands.add_parser(
        "import",
        help="list instruments from a CSV file",
        description="List the instruments of a CSV file with the columns symbol, name, price and, "
        "not required, type (STOCK or ETF), market_cap, price_decimals. All are listed, or none.",
    )
    command.add_argument(
        "file", nargs="?", type=Path, metavar="FILE.csv", help="by default the shipped instruments"
    )
    command.set_defaults(run=_import)

    command = commands.add_parser(
        "delist",
        help="take instruments off the list",
        description="Take instruments off the list, all or none. Who watches them on a running server "
        "is told; their last prices are kept for the day they are listed again.",
    )
    command.add_argument("symbols", nargs="+", type=normalize_symbol, metavar="SYMBOL")
    command.set_defaults(run=_delist)

    command = commands.add_parser(
        "watch",
        help="show live quotes in the terminal",
        description="Show live quotes in the terminal. The token comes from --token-file, or from the "
        "variable QUOTESTREAM_TOKEN, or is made with the configured secret.",
    )
    command.add_argument("symbols", nargs="+", metavar="SYMBOL", help="AAPL MSFT, or '*'")
    command.add_argument(
        "--url", type=_url, help="by default the server that the environment configures"
    )
    token = command.add_mutually_exclusive_group()
    token.add_argument(
        "--token-file",
        metavar="FILE",
        help="a file whose first line is the token; - for standard input",
    )
    token.add_argument(
        "--token",
        type=_word,
        help="the token itself, which other users of this machine can then see, as `ps` shows it: "
        "QUOTESTREAM_TOKEN and --token-file keep it private",
    )
    command.set_defaults(run=_watch)
    return parser


def _serve(arguments: argparse.Namespace, settings: Settings) -> None:
    supervisor: SupervisorLink | None = arguments.worker
    take_over_output()
    end_start_at_sigterm()
    configure_logging(
        settings.log_format, settings.log_level, supervisor.number if supervisor else None
    )
    secret = secret_of(settings)
    authenticator = authenticator_of(settings, secret)
    say_hello = partial(_say_hello, settings, authenticator)
    load = partial(_load, settings, secret)
    if supervisor:
        trio.run(serve, settings, authenticator, load, lambda _: None, supervisor)
    elif arguments.workers:
        # Else each would make one up where it cannot be kept.
        environment = {"JWT_SECRET": secret} if is_development(settings) else {}
        size = None if arguments.workers == AUTO else arguments.workers
        sys.exit(trio.run(supervise, settings, size, environment, say_hello))
    else:
        trio.run(serve, settings, authenticator, load, say_hello)


def _load(started_with: Settings, secret: str) -> tuple[Settings, Authenticator]:
    """Read settings and keys anew; a development secret stays. Errors: BadSetting, BadKey."""
    settings = load_settings()
    hide(*secrets_in(settings))
    if not is_development(settings):
        secret = settings.jwt_secret
    elif not is_development(started_with):
        raise BadKey("neither JWT_SECRET nor JWT_PUBLIC_KEY is set any more")
    return settings, authenticator_of(settings, secret)


def _warn(settings: Settings) -> None:
    """Say what is questionable about the settings of a server that could start with them."""
    if is_development(settings):
        log.warning("JWT_SECRET is not set: a random development secret is used, for tests only")


def _say_hello(settings: Settings, authenticator: Authenticator, addresses: Addresses) -> None:
    _warn(settings)
    print(f"quotes   {addresses.quotes}")
    operators = "/health /metrics /docs"
    if addresses.ops:
        print(f"HTTP     {addresses.http}/healthz /readyz")
        print(f"ops      {addresses.ops}{operators}")
    else:
        print(f"HTTP     {addresses.http}/healthz /readyz {operators}")
    if is_development(settings):
        token = development_token(authenticator)
        # In the environment it is hidden from other users, unlike an argument.
        variable = "" if makes_its_own_token(settings) else f"QUOTESTREAM_TOKEN={token} "
        print(f"token    {token}")
        print(f"connect  {variable}{_own_command()} watch AAPL MSFT TSLA --url {addresses.quotes}")
    sys.stdout.flush()


def _own_command() -> Path:
    """Return the path of `quotestream`, from the working folder if that still exists."""
    try:
        python = os.path.relpath(sys.executable)
    except OSError:
        python = sys.executable
    return Path(python).with_name("quotestream")


def _token(arguments: argparse.Namespace, settings: Settings) -> None:
    print(
        authenticator_of(settings, secret_of(settings)).sign(
            arguments.user, arguments.ttl, arguments.role
        )
    )


def _migrate(_: argparse.Namespace, settings: Settings) -> None:
    configure_logging(settings.log_format, settings.log_level)
    applied = trio.run(migrate, store_options(settings))
    print("\n".join(f"applied {name}" for name in applied) or "nothing to do")


def _import(arguments: argparse.Namespace, settings: Settings) -> None:
    from rich.console import Console
    from rich.progress import Progress

    configure_logging(settings.log_format, settings.log_level)
    file = arguments.file
    instruments = read_instruments(file) if file else load_instruments()
    console = Console(stderr=True)
    with Progress(transient=True, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("importing", total=len(instruments))
        trio.run(
            import_instruments,
            store_options(settings),
            instruments,
            lambda done: progress.update(task, completed=done),
        )
    print(f"{len(instruments)} instruments listed")


def _delist(arguments: argparse.Namespace, settings: Settings) -> None:
    configure_logging(settings.log_format, settings.log_level)
    symbols = list(dict.fromkeys(arguments.symbols))
    if missing := trio.run(delist, store_options(settings), symbols):
        _fail(f"not listed: {', '.join(missing)}; nothing was changed")
    print(f"{len(symbols)} instruments delisted")


def _watch(arguments: argparse.Namespace, settings: Settings) -> None:
    from server.client.stream import StreamRefused
    from server.client.table import watch

    host = f"[{settings.ws_host}]" if ":" in settings.ws_host else settings.ws_host
    url = arguments.url or f"ws://{host}:{settings.ws_port}/ws/quotes"
    token = token_for_watch(arguments.token, arguments.token_file, settings)
    try:
        trio.run(watch, url, token, arguments.symbols)
    except StreamRefused as error:
        _fail(f"{url}: {error}")


def _workers(text: str) -> int | str:
    if text == AUTO:
        return text
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of processes from 1, nor {AUTO}")
    return int(text)


def _supervisor_link(text: str) -> SupervisorLink:
    try:
        number, fd = map(int, text.split(":"))
        return SupervisorLink(number, fd)
    except (ValueError, OSError):
        raise argparse.ArgumentTypeError("only a supervisor can start a worker") from None


def _duration(text: str) -> Duration:
    try:
        return Duration.parse(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration such as 30m or 1h") from None


def _user(text: str) -> str:
    if not is_name(text):
        raise argparse.ArgumentTypeError(f"a user is 1 to {MAX_NAME_LENGTH} printable characters")
    return text


def _role(text: str) -> str:
    if not is_name(text):
        raise argparse.ArgumentTypeError(f"a role is 1 to {MAX_NAME_LENGTH} printable characters")
    return text


def _word(text: str) -> str:
    if not is_word(text):
        raise argparse.ArgumentTypeError("only printable ASCII characters without spaces, please")
    return text


def _url(text: str) -> str:
    try:
        parts = urlsplit(_word(text))
        host = (parts.hostname or "").encode("idna")
        good = parts.scheme in ("ws", "wss") and host and parts.port != 0 and not parts.query
    except ValueError:  # UnicodeError, which a name that DNS cannot have gives, is one
        good = False
    if not good:
        raise argparse.ArgumentTypeError(f"{text!r} is no address such as ws://host:8080/ws/quotes")
    return text


def _first(group: ExceptionGroup[Exception]) -> Exception:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first


def _fail(message: str) -> NoReturn:
    print(f"quotestream: {redact(message)}", file=sys.stderr)
    sys.exit(USAGE_ERROR)
