"""Claims of every type and size: each token is either good or gets 401, on both ports."""

import json
import time
from typing import Any

import jwt
import pytest

from server.gateway.auth import Authenticator, BadToken
from server.gateway.claims import BadClaim, check_claims
from tests.gateway.wire import Client, new_user, refusal
from tests.processes import SECRET, ServerProcess, make_token

HUGE = 10**400

NO_NAME = [1, True, [], {}, "", " ", "a\nb", "a\x00", "\u202ea", "\ud800", "x" * 256, None]
NO_TIME = [True, "9999999999", "x", [], {}, float("nan"), float("inf"), HUGE, -HUGE, None]

VALUES: dict[str, list[Any]] = {
    "sub": NO_NAME,
    "exp": [*NO_TIME, -1, 0, -1e308],
    "nbf": [*NO_TIME, 1e308],
    "iat": [*NO_TIME, 4e9],
    "role": [*NO_NAME, ["admin"]],
    "aud": [1, True, {}, [1], [None], [[]], None],
    "iss": [1, True, [], {}, None],
    "jti": [1, [], None],
    "symbols": ["AAPL", 1, {}, [1], [None], None],
}
"""Values that a claim must not have."""

WRONG = [(name, value) for name, values in VALUES.items() for value in values]

RIGHT: list[tuple[str, Any]] = [
    ("sub", "x"),
    ("sub", "x" * 255),
    ("sub", "Zoë Łukasz"),
    ("sub", "auth0|1"),
    ("exp", 1e300),
    ("exp", 10**300),
    ("nbf", 0),
    ("nbf", -1e308),
    ("nbf", 1.5),
    ("iat", 0),
    ("role", "publisher"),
    ("aud", "a"),
    ("aud", ["a", "b"]),
    ("aud", []),
    ("iss", "x"),
    ("more", {"a": [1]}),
]


def token_with(name: str, value: Any) -> str:
    """Return a well-signed token with one claim as given."""
    return token_with_all({name: value})


def token_with_all(given: dict[str, Any]) -> str:
    """Return a well-signed token with claims as given."""
    claims = {"sub": new_user(), "exp": time.time() + 600, **given}
    return jwt.api_jws.encode(json.dumps(claims).encode(), SECRET, "HS256")


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_wrong_claim_is_a_bad_token(name, value):
    """The message names the claim and quotes no part of it."""
    with pytest.raises(BadToken, match="token is not valid") as refused:
        Authenticator(secret=SECRET).verify(token_with(name, value))
    assert "xxx" not in str(refused.value)


@pytest.mark.parametrize(("name", "value"), RIGHT)
def test_right_claim_is_taken(name, value):
    """Numbers of any size in range, and names in any script, are accepted."""
    assert Authenticator(secret=SECRET).verify(token_with(name, value)).user


@pytest.mark.parametrize("missing", ["sub", "exp"])
def test_required_claims(missing):
    """A token without a user or an end is refused."""
    claims = {"sub": "ann", "exp": time.time() + 600}
    del claims[missing]
    with pytest.raises(BadToken):
        Authenticator(secret=SECRET).verify(jwt.encode(claims, SECRET, "HS256"))


def test_audience_and_issuer_are_asked_for():
    """If the server has an audience and an issuer, a token must name them."""
    authenticator = Authenticator(secret=SECRET, audience="a", issuer="i")
    assert authenticator.verify(token_with_all({"aud": ["b", "a"], "iss": "i"})).user
    for claims in (
        {},
        {"aud": "a"},
        {"aud": "ab", "iss": "i"},
        {"aud": "a", "iss": "ii"},
        {"iss": "i"},
    ):
        with pytest.raises(BadToken):
            authenticator.verify(token_with_all(claims))


def test_every_wrong_claim_is_401_at_each_door(server):
    """A bad claim is refused in the handshake, over HTTP and by `auth`, and the server has no error."""
    seen: set[tuple[int, str]] = set()
    with Client(server, token=token_with("sub", new_user())) as client:
        for name, value in WRONG[::4]:
            token = token_with(name, value)
            seen.add(refusal(server.url(None, token)).verdict)
            status, body = server.request(
                "GET", "/quotes?symbols=A", Authorization=f"Bearer {token}"
            )
            seen.add((status, json.loads(body)["error"]["code"]))
            assert client.ask("auth", token=token)["code"] == "unauthorized"
        assert client.is_answered()
    assert seen == {(401, "unauthorized")}


def test_clock_of_another_machine_may_be_ahead(server, tmp_path):
    """By five seconds, and no further; by none if JWT_LEEWAY is zero. The end of a token is exact."""
    now = time.time()
    with ServerProcess(tmp_path, JWT_LEEWAY="0s", PRICE_UPDATE_INTERVAL="1h") as strict:
        for each, ahead, verdict in (
            (server, 3, 200),
            (server, 60, 401),
            (strict, 0, 200),
            (strict, 60, 401),
        ):
            for claim in ("nbf", "iat"):
                ahead_by: dict[str, Any] = {claim: now + ahead}
                token = make_token(**ahead_by)
                status, _ = each.request(
                    "GET", "/quotes?symbols=AAPL", Authorization=f"Bearer {token}"
                )
                assert status == verdict, (claim, ahead)
        for each in (server, strict):
            token = make_token(exp=now - 0.5)
            status, _ = each.request("GET", "/quotes?symbols=AAPL", Authorization=f"Bearer {token}")
            assert status == 401


@pytest.mark.parametrize(
    "part",
    [
        "[" * 9000,
        "{}",
        "[]",
        "1",
        '{"alg":1}',
        '{"alg":null}',
        '{"alg":["HS256"]}',
        '{"alg":"HS256","kid":1}',
        '{"alg":"HS256","crit":["x"]}',
        '{"alg":"HS256","b64":false}',
        '{"alg":' + "9" * 9000 + "}",
        "\ud800",
    ],
)
def test_header_of_any_kind_is_a_bad_token(part):
    """The part before a token's claims is not signed, so anybody may have written it."""
    segment = jwt.utils.base64url_encode(part.encode("utf-8", "surrogatepass")).decode()
    for token in (f"{segment}.e30.x", f"{segment}..", segment, f"{segment}.{segment}.{segment}"):
        with pytest.raises(BadToken, match="token"):
            Authenticator(secret=SECRET).verify(token)


@pytest.mark.parametrize(
    ("claims", "problem"),
    [
        ({"exp": 1000.001, "nbf": 1005.0, "iat": 1005.0}, None),
        ({"exp": 1000.0}, "it has expired"),
        ({"exp": 2000.0, "nbf": 1005.001}, "it is not valid yet"),
        ({"exp": 2000.0, "iat": 1005.001}, "it was made in the future: the clocks differ"),
    ],
)
def test_times_are_compared_to_the_moment(claims, problem):
    """A token ends at its end. It may begin as late as another machine's clock may be ahead."""
    claims = {"sub": "ann", **claims}
    if problem is None:
        check_claims(claims, 1000.0, 5.0, None, None)
        return
    with pytest.raises(BadClaim) as error:
        check_claims(claims, 1000.0, 5.0, None, None)
    assert str(error.value) == problem
