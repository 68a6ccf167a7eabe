"""The public key that verifies tokens. Only servers with one import cryptography, which takes 9 MB."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from server.gateway.keys import BadKey

MIN_RSA_BITS = 2048
"""The shortest modulus (RFC 7518 §3.3): a shorter one can be factored."""

KEY_FILES = (".pem", ".pub", ".key", ".crt", ".cer")
"""Endings by which JWT_PUBLIC_KEY counts as a file's name. Only a file's name may appear in an error:
any other text may be a secret in the wrong variable.
"""


class PublicKey(NamedTuple):
    """A public key. The first of its algorithms is its default."""

    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
    algorithms: Sequence[str]

    def verifies(self, algorithm: str, message: bytes, signature: bytes) -> bool:
        """Whether `signature` is that of `message`."""
        return jwt.get_algorithm_by_name(algorithm).verify(message, self.key, signature)


def load_public_key(text: str) -> PublicKey:
    """Return the key in PEM text, or in the file that `text` names. Errors: BadKey."""
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
        return PublicKey(key, ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"))
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp256r1":
        return PublicKey(key, ("ES256",))
    if isinstance(key, ed25519.Ed25519PublicKey):
        return PublicKey(key, ("EdDSA",))
    raise BadKey("JWT_PUBLIC_KEY must be an RSA, P-256 or Ed25519 key")
