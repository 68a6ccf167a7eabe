"""Secrets and tokens of the command. It shows none of them to other users."""

import sys
from ipaddress import ip_address
from pathlib import Path

from server.config.redaction import hide
from server.config.settings import Settings
from server.gateway.auth import Authenticator, BadKey, development_secret, kept_development_secret

MAX_TOKEN_LENGTH = 16 * 1024
"""Characters: more than fit into a request's head."""


class BadTokenSource(Exception):
    """The named source holds no token; the message is one line for the user."""


def is_development(settings: Settings) -> bool:
    """Return whether no key is configured, so that the development secret is used."""
    return not settings.jwt_secret and not settings.jwt_public_key


def refuse_other_machines(settings: Settings) -> None:
    """Errors: BadKey if other machines could connect to a server with the development secret."""
    hosts = {
        "WS_HOST": settings.ws_host,
        "HTTP_HOST": settings.http_host,
        "OPS_HOST": settings.ops_host,
    }
    for name, host in hosts.items():
        if host and not _is_loopback(host):
            raise BadKey(
                f"JWT_SECRET is not set, and {name}={host} lets others connect: the development "
                "secret is for this machine only. `openssl rand -hex 32` makes a secret"
            )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def secret_of(settings: Settings) -> str:
    """Return the configured secret, or the development secret, which is then hidden from the log."""
    if not is_development(settings):
        return settings.jwt_secret
    secret = development_secret()
    hide(secret)
    return secret


def authenticator_of(settings: Settings, secret: str) -> Authenticator:
    """Return the authenticator that the settings describe. Errors: BadKey."""
    authenticator = Authenticator(
        secret=secret,
        public_key=settings.jwt_public_key,
        algorithms=settings.jwt_algorithms,
        audience=settings.jwt_audience,
        issuer=settings.jwt_issuer,
        leeway=settings.jwt_leeway,
    )
    # A worker gets the development secret from its supervisor.
    authenticator.is_development = bool(secret) and secret == kept_development_secret()
    return authenticator


def is_secret_kept() -> bool:
    """Return whether the development secret outlives the process. If not, each call makes another."""
    return development_secret() == development_secret()


def makes_its_own_token(settings: Settings) -> bool:
    """Return whether `watch`, started by this user without variables, makes a token for the server."""
    return is_secret_kept() and not (settings.jwt_audience or settings.jwt_issuer)


def client_token(
    given: str | None, file: str | None, settings: Settings, role: str | None = None
) -> str:
    """Return the token `given`, the one in `file`, or that of QUOTESTREAM_TOKEN; else make one with
    this role.

    Errors: BadTokenSource; BadKey if none can be made.
    """
    if given:
        return given
    if file:
        return _checked("--token-file", _first_line(file))
    if token := settings.quotestream_token.strip():
        return _checked("QUOTESTREAM_TOKEN", token)
    try:
        return authenticator_of(settings, secret_of(settings)).development_token(role)
    except BadKey as error:
        raise BadKey(f"{error}. Give a token by --token-file or QUOTESTREAM_TOKEN") from None


def is_word(text: str) -> bool:
    """Return whether `text` fits into a request's line or header."""
    return text.isascii() and text.isprintable() and " " not in text


def _checked(source: str, token: str) -> str:
    hide(token)
    if not token or not is_word(token):
        raise BadTokenSource(f"{source}: a token is one line of ASCII characters without spaces")
    return token


def _first_line(path: str) -> str:
    """Read from a file, or from standard input for `-`. Errors: BadTokenSource."""
    try:
        if path == "-":
            # A closed input is None.
            return sys.stdin.readline(MAX_TOKEN_LENGTH).strip() if sys.stdin else ""
        with Path(path).open(encoding="utf-8") as file:
            return file.readline(MAX_TOKEN_LENGTH).strip()
    except UnicodeDecodeError:
        return ""
    except OSError as error:
        raise BadTokenSource(f"--token-file: cannot read {path}: {error.strerror}") from None
