"""The secret that signs and verifies tokens by HMAC (RFC 7518 §3.2), and how a key is refused."""

import hmac
import re
from collections.abc import Sequence
from typing import NamedTuple

HMAC_SECRET_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
"""The fewest bytes of a secret: the length of the hash."""

HMAC_ALGORITHMS = tuple(HMAC_SECRET_BYTES)

_OTHER_KEY = re.compile(r"----[- ](BEGIN|END) |^ssh-|^ecdsa-sha2-")
"""A key in PEM or of SSH. The public one is known to others, so it is not a secret."""


class BadKey(Exception):
    """The configured key cannot verify tokens. The message is one line for the operator."""


class Secret(NamedTuple):
    """A secret key."""

    text: str

    def sign(self, algorithm: str, message: bytes) -> bytes:
        """Return the signature of `message`."""
        return hmac.digest(self.text.encode(), message, f"sha{algorithm[2:]}")

    def verifies(self, algorithm: str, message: bytes, signature: bytes) -> bool:
        """Whether `signature` is that of `message`, compared in constant time."""
        return hmac.compare_digest(self.sign(algorithm, message), signature)


def check_secret(secret: str, algorithms: Sequence[str]) -> None:
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
    if _OTHER_KEY.search(secret):
        raise BadKey("JWT_SECRET is a key in PEM or of SSH: a public one belongs in JWT_PUBLIC_KEY")
    for algorithm in algorithms:
        if len(key) < HMAC_SECRET_BYTES[algorithm]:
            raise BadKey(
                f"JWT_SECRET is shorter than {HMAC_SECRET_BYTES[algorithm]} bytes, which "
                f"{algorithm} needs: it could be guessed. `openssl rand -base64 48` makes a good one"
            )
