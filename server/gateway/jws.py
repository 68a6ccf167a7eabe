"""The text of signed tokens: JSON Web Signatures in the compact form (RFC 7515 §7.1)."""

import base64
import json
from typing import Any, NamedTuple


class Malformed(Exception):
    """A text is not a signed token. The message quotes no part of it."""


class SignedToken(NamedTuple):
    """A token's parts. Nothing in them is known to be true before the signature is verified."""

    algorithm: str
    payload: bytes
    message: bytes
    """The bytes that were signed."""
    signature: bytes


def read_token(text: str) -> SignedToken:
    """Take a token apart, without looking at its signature. Errors: Malformed.

    A token with the header `crit` or `b64` is refused: both ask for extensions that the server does not
    have (RFC 7515 §4.1.11, RFC 7797).
    """
    parts = text.encode(errors="surrogatepass").split(b".")
    if len(parts) != 3:
        raise Malformed("it does not have three parts")
    header = read_json_object(_decode(parts[0]))
    if "crit" in header or header.get("b64", True) is not True:
        raise Malformed("its header asks for an extension")
    if not isinstance(header.get("kid", ""), str):
        raise Malformed("its header names the key by something else than text")
    algorithm = str(header.get("alg"))
    return SignedToken(algorithm, _decode(parts[1]), b".".join(parts[:2]), _decode(parts[2]))


def read_json_object(data: bytes) -> dict[str, Any]:
    """Return the JSON object in `data`. Errors: Malformed."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise Malformed("a part is not JSON") from None
    if not isinstance(value, dict):
        raise Malformed("a part is not a JSON object")
    return value


def signed_part(algorithm: str, claims: dict[str, object]) -> bytes:
    """Return the message that a token with these claims signs."""
    header = {"alg": algorithm, "typ": "JWT"}
    texts = (json.dumps(each, separators=(",", ":")) for each in (header, claims))
    return b".".join(_encode(text.encode()) for text in texts)


def token_of(message: bytes, signature: bytes) -> str:
    """Return the token of a signed message."""
    return b".".join((message, _encode(signature))).decode()


def _encode(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _decode(part: bytes) -> bytes:
    """Decode one part. Some issuers pad it. Errors: Malformed."""
    bare = part.rstrip(b"=")
    padded = bare + b"=" * (-len(bare) % 4)
    try:
        data = base64.urlsafe_b64decode(padded)
    except ValueError:
        raise Malformed("a part is not base64url") from None
    # The decoder skips characters of no alphabet, and ignores spare bits at the end.
    if part not in (bare, padded) or base64.urlsafe_b64encode(data) != padded:
        raise Malformed("a part is not base64url")
    return data
