"""Secrets and tokens of the command. It shows none of them to other users."""

import sys
from pathlib import Path

from server.config.redaction import hide
from server.config.settings import Duration, Settings
from server.gateway.auth import Authenticator, development_secret

DEVELOPMENT_USER = "developer"
DEVELOPMENT_LIFETIME = Duration(12 * 3600)

MAX_TOKEN_LENGTH = 16 * 1024
"""Characters: more than fit into a request's head."""


class BadTokenSource(Exception):
    """The named source holds no token; the message is one line for the user."""


def is_development(settings: Settings) -> bool:
    """Return whether no key is configured, so that the development secret is used."""
    return not settings.jwt_secret and not settings.jwt_public_key


def secret_of(settings: Settings) -> str:
    """Return the configured secret, or the development secret, which is then hidden from the log."""
    if not is_development(settings):
        return settings.jwt_secret
    secret = development_secret()
    hide(secret)
    return secret


def authenticator_of(settings: Settings, secret: str) -> Authenticator:
    """Return the authenticator that the settings describe. Errors: BadKey."""
    return Authenticator(
        secret=secret,
        public_key=settings.jwt_public_key,
        algorithms=settings.jwt_algorithms,
        audience=settings.jwt_audience,
        issuer=settings.jwt_issuer,
    )


def makes_its_own_token(settings: Settings) -> bool:
    """Return whether `watch` of this user, without variables, makes a valid token for this server.

    It does not if the development secret cannot be kept, because each process then has another one.
    """
    kept = development_secret() == development_secret()
    return kept and not (settings.jwt_audience or settings.jwt_issuer)


def development_token(authenticator: Authenticator) -> str:
    """Return a token for the user of this machine. Errors: BadKey without a secret."""
    return authenticator.sign(DEVELOPMENT_USER, DEVELOPMENT_LIFETIME)


def token_for_watch(given: str | None, file: str | None, settings: Settings) -> str:
    """Return the token `given`, the one in `file`, or that of QUOTESTREAM_TOKEN; else make one.

    Errors: BadTokenSource; BadKey if none can be made.
    """
    if given:
        return given
    if file:
        return _checked("--token-file", _first_line(file))
    if token := settings.quotestream_token.strip():
        return _checked("QUOTESTREAM_TOKEN", token)
    return development_token(authenticator_of(settings, secret_of(settings)))


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
            return sys.stdin.readline(MAX_TOKEN_LENGTH).strip()
        with Path(path).open(encoding="utf-8") as file:
            return file.readline(MAX_TOKEN_LENGTH).strip()
    except UnicodeDecodeError:
        return ""
    except OSError as error:
        raise BadTokenSource(f"--token-file: cannot read {path}: {error.strerror}") from None
