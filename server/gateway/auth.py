"""Finds a client's user by a JSON Web Token. Each key verifies only its own algorithms."""

import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from server.config.state_folder import state_folder
from server.gateway.claims import BadClaim, check_claims
from server.gateway.pyjwt import load_pyjwt
from server.quotes.instrument import normalize_symbol

if TYPE_CHECKING:  # cryptography takes megabytes, which servers without a public key do without
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from jwt.types import Options

    PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

HMAC_SECRET_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
"""The fewest bytes of a secret: the length of the hash (RFC 7518 §3.2)."""

HMAC_ALGORITHMS = tuple(HMAC_SECRET_BYTES)

DEVELOPMENT_SECRET_BYTES = 48
"""Random bytes. Base64 makes 64 characters of them, enough for each of the algorithms."""

MIN_RSA_BITS = 2048
"""The shortest modulus (RFC 7518 §3.3): a shorter one can be factored."""

KEY_FILES = (".pem", ".pub", ".key", ".crt", ".cer")
"""Endings by which JWT_PUBLIC_KEY counts as a file's name. Only a file's name may appear in an error:
any other text may be a secret in the wrong variable.
"""


PUBLISHER = "publisher"
"""The role of tokens that may publish prices."""


class BadToken(Exception):
    """A token does not prove a user. The message says why, and never holds the token."""


class BadKey(Exception):
    """The configured key cannot verify tokens. The message is one line for the operator."""


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


DEVELOPMENT_USER = "developer"

DEVELOPMENT_LIFETIME = 12 * 3600.0
"""Seconds."""

LEEWAY = 5.0
"""Seconds between two machines' clocks that are taken for the same time."""


class Authenticator:
    """Verifies tokens, and signs them if it has a secret. `is_development`: whether that is this
    machine's development secret.
    """

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
        self.is_development = False
        self._pyjwt = load_pyjwt(public_keys=bool(public_key))
        self._keys: dict[str, PublicKey | str] = {}
        every: list[str] = []
        if secret:
            every += HMAC_ALGORITHMS
            allowed = _allowed(HMAC_ALGORITHMS, algorithms, "HS256")
            _check_secret(secret, allowed)
            self._keys |= dict.fromkeys(allowed, secret)
        if public_key:
            key, usable, default = _load_public_key(public_key)
            every += usable
            self._keys |= dict.fromkeys(_allowed(usable, algorithms, default), key)
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
        jwt = self._pyjwt
        try:
            algorithm = str(jwt.get_unverified_header(token).get("alg"))
            if algorithm not in self._keys:
                raise BadToken("the token's algorithm is not allowed")
            claims = jwt.decode(
                token, self._keys[algorithm], algorithms=[algorithm], options=_SIGNATURE_ONLY
            )
        except jwt.InvalidSignatureError:
            raise BadToken("the token's signature is wrong") from None
        # PyJWT's own words may quote the token.
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise BadToken("the token is malformed") from None
        try:
            check_claims(claims, time.time(), self._leeway, self._audience, self._issuer)
        except BadClaim as error:
            raise BadToken(f"the token is not valid: {error}") from None
        symbols = None
        if claims.get("role") == PUBLISHER and "symbols" in claims:
            symbols = tuple(normalize_symbol(each) for each in claims["symbols"])
        return Identity(claims["sub"], claims.get("role"), float(claims["exp"]), symbols)

    def development_token(self, role: str | None = None) -> str:
        """Return a token for the user of this machine. Errors: BadKey without a secret."""
        return self.sign(DEVELOPMENT_USER, DEVELOPMENT_LIFETIME, role)

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
        if algorithm is None:
            raise BadKey("tokens can be made with JWT_SECRET only; JWT_PUBLIC_KEY just checks them")
        claims: dict[str, object] = {"sub": user, "exp": int(time.time() + lifetime)}
        claims |= {"role": role} if role else {}
        claims |= {} if symbols is None else {"symbols": list(symbols)}
        claims |= {"aud": self._audience} if self._audience else {}
        claims |= {"iss": self._issuer} if self._issuer else {}
        return str(self._pyjwt.encode(claims, self._keys[algorithm], algorithm))


_SIGNATURE_ONLY: "Options" = {
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}
"""`check_claims` checks the claims, as PyJWT takes `"exp": "1e9"` and `"exp": true` for numbers."""


def _allowed(usable: Sequence[str], wanted: Sequence[str], default: str) -> list[str]:
    return [name for name in usable if name in wanted] if wanted else [default]


def _check_secret(secret: str, algorithms: Sequence[str]) -> None:
    """Refuse a secret that can be guessed or is public. Errors: BadKey, which does not quote it."""
    try:
        key = secret.encode()
    except UnicodeEncodeError:
        raise BadKey("JWT_SECRET is not UTF-8 text") from None
    if not secret.strip():
        raise BadKey("JWT_SECRET is blank: anyone could make tokens")
    if secret != secret.strip():
        # Some programs count a file's last newline as part of the key, and others do not.
        raise BadKey("JWT_SECRET begins or ends with white space: remove it")
    if len(set(secret)) == 1:
        raise BadKey("JWT_SECRET is one repeated character, which can be guessed")
    kinds = load_pyjwt(public_keys=False).utils
    if kinds.is_pem_format(key) or kinds.is_ssh_key(key):
        raise BadKey("JWT_SECRET is a key in PEM or of SSH: a public one belongs in JWT_PUBLIC_KEY")
    for algorithm in algorithms:
        if len(key) < HMAC_SECRET_BYTES[algorithm]:
            raise BadKey(
                f"JWT_SECRET is shorter than {HMAC_SECRET_BYTES[algorithm]} bytes, which "
                f"{algorithm} needs: it could be guessed. `openssl rand -base64 48` makes a good one"
            )


def _load_public_key(text: str) -> tuple["PublicKey", Sequence[str], str]:
    """Return the key, the algorithms it can be used with, and its default. Errors: BadKey."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    text = text.strip()
    try:
        pem = text.encode() if text.startswith("-----BEGIN") else Path(text).read_bytes()
        key = load_pem_public_key(pem.replace(b"\\n", b"\n"))
    except OSError as error:
        name = text if text.endswith(KEY_FILES) else "the file that it names"
        raise BadKey(f"JWT_PUBLIC_KEY: cannot read {name}: {error.strerror}") from None
    except UnsupportedAlgorithm:
        raise BadKey("JWT_PUBLIC_KEY is of a kind that cannot be used here") from None
    except ValueError:
        raise BadKey("JWT_PUBLIC_KEY is not a public key in PEM") from None
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < MIN_RSA_BITS:
            raise BadKey(
                f"JWT_PUBLIC_KEY is an RSA key of {key.key_size} bits, which can be forged: "
                f"{MIN_RSA_BITS} or more are needed"
            )
        return key, ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RS256"
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp256r1":
        return key, ("ES256",), "ES256"
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key, ("EdDSA",), "EdDSA"
    raise BadKey("JWT_PUBLIC_KEY must be an RSA, P-256 or Ed25519 key")


def development_secret() -> str:
    """Return the secret of a machine without a configured one, from the user's state folder.

    It is made once and kept, so that `quotestream token` and a restarted server agree. If the folder
    cannot be written, the secret lives as long as the process.
    """
    fresh = secrets.token_urlsafe(DEVELOPMENT_SECRET_BYTES)
    try:
        file = _development_file()
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
            new.write(fresh)
    except OSError:
        # The file exists, or cannot be written.
        pass
    return kept_development_secret() or fresh


def kept_development_secret() -> str:
    """Return the development secret if one was made and kept, otherwise an empty text."""
    try:
        return _development_file().read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _development_file() -> Path:
    """Errors: OSError if the user has no state folder."""
    return state_folder() / "development-secret"
