"""Finds a client's user by a JSON Web Token. Each key verifies only its own algorithms."""

import os
import secrets
import time
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from server.config.state_folder import state_folder
from server.gateway.claims import BadClaim, check_claims
from server.gateway.jws import Malformed, read_json_object, read_token, signed_part, token_of
from server.gateway.keys import HMAC_ALGORITHMS, BadKey, Secret, check_secret
from server.quotes.instrument import normalize_symbol

DEVELOPMENT_SECRET_BYTES = 48
"""Random bytes. Base64 makes 64 characters of them, enough for each of the algorithms."""

PUBLISHER = "publisher"
"""The role of tokens that may publish prices."""


class BadToken(Exception):
    """A token does not prove a user. The message says why, and never holds the token."""


class Key(Protocol):
    """A key, secret or public, that verifies signatures."""

    def verifies(self, algorithm: str, message: bytes, signature: bytes) -> bool:
        """Whether `signature` is that of `message`."""


def bearer_token(authorization: str) -> str | None:
    """Return the token in a header `Authorization` (RFC 6750 §2.1); None if it has another scheme."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


class Identity(NamedTuple):
    """A verified token's subject, its role, if it has one, and its end in Unix seconds.

    `symbols`: the symbols, or prefixes ending in `*`, that a publisher may name; None for all.
    """

    user: str
    role: str | None
    expires_at: float
    symbols: tuple[str, ...] | None = None


LEEWAY = 5.0
"""Seconds between two machines' clocks that are taken for the same time."""


class Authenticator:
    """Verifies tokens, and signs them if it has a secret."""

    def __init__(
        self,
        *,
        secret: str = "",
        public_key: str = "",
        algorithms: Sequence[str] = (),
        audience: str = "",
        issuer: str = "",
        leeway: float = LEEWAY,
    ) -> None:
        """Bind each allowed algorithm to its one key.

        A token names its own algorithm. With any other choice of the key, a token "signed" by HS256
        with the public key's text would pass (RFC 8725 §3.1).

        Arguments:
            secret: the key of HS256, HS384 and HS512. By default only HS256 is allowed.
            public_key: PEM text, or the path of a file with it: RSA, EC P-256 or Ed25519.
            algorithms: the allowed ones, in place of each key's default.
            leeway: seconds by which `nbf` and `iat` may be ahead.

        Errors: BadKey.
        """
        self._keys: dict[str, Key] = {}
        self._secret: Secret | None = None
        every: list[str] = []
        if secret:
            allowed = _allowed(HMAC_ALGORITHMS, algorithms)
            check_secret(secret, allowed)
            every += HMAC_ALGORITHMS
            self._secret = Secret(secret)
            self._keys |= dict.fromkeys(allowed, self._secret)
        if public_key:
            # The import takes 9 MB, which servers without a public key do without.
            from server.gateway.public_key import load_public_key

            key = load_public_key(public_key)
            every += key.algorithms
            self._keys |= dict.fromkeys(_allowed(key.algorithms, algorithms), key)
        if not set(algorithms) <= set(every):
            raise BadKey(
                f"JWT_ALGORITHMS={','.join(algorithms)!r} is not allowed: "
                f"the configured keys are for {', '.join(every)}"
            )
        self._audience = audience or None
        self._issuer = issuer or None
        self._leeway = leeway

    def verifies_as(self, other: "Authenticator") -> bool:
        """Whether both have the same keys and require the same claims."""
        return vars(self) == vars(other)

    def take_over(self, other: "Authenticator") -> None:
        """Verify and sign as `other` from now on. Tokens that were verified before stay valid."""
        vars(self).update(vars(other))

    def verify(self, token: str) -> Identity:
        """Return the identity that a token proves. Errors: BadToken."""
        try:
            signed = read_token(token)
            key = self._keys.get(signed.algorithm)
            if key is None:
                raise BadToken("the token's algorithm is not allowed")
            if not key.verifies(signed.algorithm, signed.message, signed.signature):
                raise BadToken("the token's signature is wrong")
            claims = read_json_object(signed.payload)
        except Malformed:
            raise BadToken("the token is malformed") from None
        try:
            check_claims(claims, time.time(), self._leeway, self._audience, self._issuer)
        except BadClaim as error:
            raise BadToken(f"the token is not valid: {error}") from None
        symbols = None
        if claims.get("role") == PUBLISHER and "symbols" in claims:
            symbols = tuple(normalize_symbol(each) for each in claims["symbols"])
        return Identity(claims["sub"], claims.get("role"), float(claims["exp"]), symbols)

    def sign(
        self,
        user: str,
        lifetime: float,
        role: str | None = None,
        symbols: Sequence[str] | None = None,
    ) -> str:
        """Return a token for `user` that lasts `lifetime` seconds. Errors: BadKey, without a secret.

        Arguments:
            symbols: those that the user may publish, None for all.
        """
        algorithm = next((name for name in HMAC_ALGORITHMS if name in self._keys), None)
        if self._secret is None or algorithm is None:
            raise BadKey("tokens can be made with JWT_SECRET only; JWT_PUBLIC_KEY just checks them")
        claims: dict[str, object] = {"sub": user, "exp": int(time.time() + lifetime)}
        claims |= {"role": role} if role else {}
        claims |= {} if symbols is None else {"symbols": list(symbols)}
        claims |= {"aud": self._audience} if self._audience else {}
        claims |= {"iss": self._issuer} if self._issuer else {}
        message = signed_part(algorithm, claims)
        return token_of(message, self._secret.sign(algorithm, message))


def _allowed(usable: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Return the wanted algorithms of a key; without any, the key's default, its first."""
    return [name for name in usable if name in wanted] if wanted else list(usable[:1])


def development_secret() -> str:
    """Return the secret of a machine without a configured one, from the user's state folder.

    It is made once and kept, so that `quotestream token` and a restarted server agree. If the folder
    cannot be written, the secret lives as long as the process.
    """
    fresh = secrets.token_urlsafe(DEVELOPMENT_SECRET_BYTES)
    try:
        file = state_folder() / "development-secret"
    except OSError:
        return fresh
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
            new.write(fresh)
    except OSError:
        # The file exists, or cannot be written.
        pass
    try:
        return file.read_text().strip() or fresh
    except (OSError, UnicodeDecodeError):
        return fresh
