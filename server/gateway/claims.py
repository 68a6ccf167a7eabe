"""The types and bounds of a token's claims (RFC 7519 §4.1), checked once its signature is good."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

MAX_NAME_LENGTH = 255
"""Characters of `sub` and `role`, which appear in log lines and are kept for each connection."""


class BadClaim(Exception):
    """A claim has a wrong type or value. The message says which, and quotes no part of the token."""


def is_name(value: object) -> bool:
    """Whether `value` can be a user or a role: printable, not blank, MAX_NAME_LENGTH at most."""
    return (
        isinstance(value, str)
        and len(value) <= MAX_NAME_LENGTH
        and value.isprintable()
        and not value.isspace()
        and bool(value)
    )


def check_claims(
    claims: Mapping[str, Any], now: float, leeway: float, audience: str | None, issuer: str | None
) -> None:
    """Check every claim that the server looks at.

    Arguments:
        now: the wall clock's time in Unix seconds.
        leeway: seconds by which `nbf` and `iat` may be ahead, as another machine's clock may be. `exp`
            has none: a token's end is its end.
        audience: must be named by `aud`, if it is configured.
        issuer: must be equal to `iss`, if it is configured.

    Errors: BadClaim.
    """
    if not is_name(claims.get("sub")):
        raise BadClaim(f"sub must be 1 to {MAX_NAME_LENGTH} printable characters")
    if not is_name(claims.get("role", "user")):
        raise BadClaim(f"role must be 1 to {MAX_NAME_LENGTH} printable characters")
    symbols = claims.get("symbols", [])
    if not isinstance(symbols, list) or not all(isinstance(each, str) for each in symbols):
        raise BadClaim("symbols must be a list of texts")
    if not isinstance(claims.get("jti", ""), str):
        raise BadClaim("jti must be text")
    _check_times(claims, now, leeway)
    _check_parties(claims, audience, issuer)


def _check_times(claims: Mapping[str, Any], now: float, leeway: float) -> None:
    if "exp" not in claims:
        raise BadClaim("exp is missing")
    for name in ("exp", "nbf", "iat"):
        if name in claims and not _is_number(claims[name]):
            raise BadClaim(f"{name} must be a finite number")
    if claims["exp"] <= now:
        raise BadClaim("it has expired")
    if claims.get("nbf", now) > now + leeway:
        raise BadClaim("it is not valid yet")
    if claims.get("iat", now) > now + leeway:
        raise BadClaim("it was made in the future: the clocks differ")


def _check_parties(claims: Mapping[str, Any], audience: str | None, issuer: str | None) -> None:
    given = claims.get("aud", [])
    audiences = [given] if isinstance(given, str) else given
    if not isinstance(audiences, list) or not all(isinstance(each, str) for each in audiences):
        raise BadClaim("aud must be text or a list of texts")
    if audience is not None and audience not in audiences:
        raise BadClaim("it is for another audience")
    if not isinstance(claims.get("iss", ""), str):
        raise BadClaim("iss must be text")
    if issuer is not None and claims.get("iss") != issuer:
        raise BadClaim("it is from another issuer")


def _is_number(value: object) -> bool:
    """Whether a JSON value is a number that a float can hold. To Python, `true` is an int."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return isfinite(value)
    except OverflowError:
        return False
