"""Keys and the tokens they verify, without a server."""

import os
import stat
import time
from base64 import b64encode
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from server.gateway.auth import (
    HMAC_SECRET_BYTES,
    Authenticator,
    BadKey,
    BadToken,
    development_secret,
)
from server.gateway.claims import BadClaim, check_claims

SECRET = "0123456789" * 7

RSA_KEY = rsa.generate_private_key(65537, 2048)

PRIVATE_KEYS: dict[str, Any] = {
    "RS256": RSA_KEY, "RS384": RSA_KEY, "RS512": RSA_KEY,
    "PS256": RSA_KEY, "PS384": RSA_KEY, "PS512": RSA_KEY,
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}  # a table # fmt: skip


def public(private) -> str:
    key = private.public_key()
    return str(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), "ascii")


def claims(**more):
    return {"sub": "ann", "exp": int(time.time()) + 60} | more


@pytest.mark.parametrize("algorithm", PRIVATE_KEYS)
@pytest.mark.parametrize("form", ["text", "escaped", "file"])
def test_public_key_verifies_what_its_private_key_signed(tmp_path, algorithm, form):
    """As text, as text on one line, or in a file; nobody can sign with it."""
    text = public(PRIVATE_KEYS[algorithm])
    if form == "escaped":
        text = text.replace("\n", "\\n")
    elif form == "file":
        file = tmp_path / "key.pem"
        file.write_text(text)
        text = f" {file} "
    authenticator = Authenticator(public_key=text, algorithms=[algorithm])
    token = jwt.encode(claims(role="admin"), PRIVATE_KEYS[algorithm], algorithm)
    identity = authenticator.verify(token)
    assert (identity.user, identity.role) == ("ann", "admin")
    assert identity.expires_at == pytest.approx(time.time() + 60, abs=10)
    with pytest.raises(BadKey) as error:
        authenticator.sign("ann", 60)
    assert str(error.value) == (
        "tokens can be made with JWT_SECRET only; JWT_PUBLIC_KEY just checks them"
    )


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_each_kind_of_key_has_a_default(algorithm):
    """Other algorithms of the same key have to be named."""
    authenticator = Authenticator(public_key=public(PRIVATE_KEYS[algorithm]))
    authenticator.verify(jwt.encode(claims(), PRIVATE_KEYS[algorithm], algorithm))
    if algorithm == "RS256":
        with pytest.raises(BadToken, match=r"^the token's algorithm is not allowed$"):
            authenticator.verify(jwt.encode(claims(), RSA_KEY, "PS256"))


def short_rsa() -> str:
    return public(rsa.generate_private_key(65537, 1024))


def odd_curve() -> str:
    return public(ec.generate_private_key(ec.SECP384R1()))


def other_kind() -> str:
    return public(dsa.generate_private_key(2048))


def unheard_of_kind() -> str:
    """Return an Ed25519 key whose algorithm has another object identifier (RFC 8410 §3)."""
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    text = b64encode(der.replace(b"\x2b\x65\x70", b"\x2b\x65\x7f")).decode()
    return f"-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n"


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        (
            "/nowhere/key.pem",
            "JWT_PUBLIC_KEY: cannot read /nowhere/key.pem: No such file or directory",
        ),
        (
            "/nowhere/secret",
            "JWT_PUBLIC_KEY: cannot read the file that it names: No such file or directory",
        ),
        ("-----BEGIN PUBLIC KEY-----\nx\n", "JWT_PUBLIC_KEY is not a public key in PEM"),
        (
            short_rsa,
            "JWT_PUBLIC_KEY is an RSA key of 1024 bits, which can be forged: 2048 or more are needed",
        ),
        (odd_curve, "JWT_PUBLIC_KEY must be an RSA, P-256 or Ed25519 key"),
        (other_kind, "JWT_PUBLIC_KEY must be an RSA, P-256 or Ed25519 key"),
        (unheard_of_kind, "JWT_PUBLIC_KEY is of a kind that cannot be used here"),
    ],
)
def test_key_that_cannot_verify_stops_the_start(key, problem):
    """In a line for the operator, which names no more than a file."""
    with pytest.raises(BadKey) as error:
        Authenticator(public_key=key if isinstance(key, str) else key())
    assert str(error.value) == problem


def test_file_that_is_no_key_stops_the_start(tmp_path):
    """Whatever is in it."""
    file = tmp_path / "key.pub"
    file.write_bytes(b"\xff\x00")
    with pytest.raises(BadKey, match="not a public key in PEM"):
        Authenticator(public_key=str(file))


@pytest.mark.parametrize("algorithm", HMAC_SECRET_BYTES)
def test_secret_signs_and_verifies(algorithm):
    """With the audience and the issuer that the server asks for."""
    authenticator = Authenticator(
        secret=SECRET, algorithms=[algorithm], audience="quotes", issuer="https://me"
    )
    token = authenticator.sign("ann", 60, "admin")
    assert jwt.get_unverified_header(token)["alg"] == algorithm
    read = jwt.decode(token, options={"verify_signature": False})
    assert read.pop("exp") == pytest.approx(time.time() + 60, abs=10)
    assert read == {"sub": "ann", "role": "admin", "aud": "quotes", "iss": "https://me"}
    assert authenticator.verify(token).role == "admin"
    plain = Authenticator(secret=SECRET)
    assert plain.verify(plain.sign("bob", 60))[:2] == ("bob", None)
    with pytest.raises(BadToken, match=r"^the token is not valid: "):
        authenticator.verify(Authenticator(secret=SECRET, algorithms=[algorithm]).sign("ann", 60))


def test_bad_tokens_say_why_and_no_more():
    """They are never quoted."""
    authenticator = Authenticator(secret=SECRET)
    signed = jwt.encode(claims(), SECRET[::-1], "HS256")
    for token, problem in (
        (signed, "the token's signature is wrong"),
        ("nonsense", "the token is malformed"),
        ("", "the token is malformed"),
        (jwt.encode(claims(), SECRET, "HS512"), "the token's algorithm is not allowed"),
    ):
        with pytest.raises(BadToken) as error:
            authenticator.verify(token)
        assert str(error.value) == problem


@pytest.mark.parametrize(
    ("secret", "problem"),
    [
        (" ", "JWT_SECRET is blank: anyone could make tokens"),
        (SECRET + "\n", "JWT_SECRET begins or ends with white space: remove it"),
        ("x" * 100, "JWT_SECRET is one repeated character, which can be guessed"),
        (public(PRIVATE_KEYS["ES256"]).strip(), "JWT_SECRET is a key in PEM or of SSH"),
        ("ssh-ed25519 " + "A" * 60, "JWT_SECRET is a key in PEM or of SSH"),
        ("\ud800" * 60 + "x", "JWT_SECRET is not UTF-8 text"),
        (SECRET[:31], "JWT_SECRET is shorter than 32 bytes, which HS256 needs"),
    ],
)
def test_secret_that_can_be_guessed_stops_the_start(secret, problem):
    """Without being quoted."""
    with pytest.raises(BadKey) as error:
        Authenticator(secret=secret)
    assert str(error.value).startswith(problem)
    assert len(secret) < 5 or secret not in str(error.value)


def test_secret_of_the_least_length_is_taken():
    """As many bytes as its hash has."""
    for algorithm, size in HMAC_SECRET_BYTES.items():
        Authenticator(secret=SECRET[:size], algorithms=[algorithm])
        with pytest.raises(BadKey, match=f"shorter than {size} bytes"):
            Authenticator(secret=SECRET[: size - 1], algorithms=[algorithm])


def test_algorithms_without_a_key_are_named():
    """Together with those that there are keys for."""
    with pytest.raises(BadKey) as error:
        Authenticator(secret=SECRET, algorithms=["HS256", "RS256"])
    assert str(error.value) == (
        "JWT_ALGORITHMS='HS256,RS256' is not allowed: "
        "the configured keys are for HS256, HS384, HS512"
    )


def test_reload_takes_new_keys_over():
    """Whether they are the same is seen before."""
    one = Authenticator(secret=SECRET, audience="a")
    assert one.verifies_as(Authenticator(secret=SECRET, audience="a"))
    other = Authenticator(secret=SECRET[::-1], audience="b")
    assert not one.verifies_as(other)
    token = other.sign("ann", 60)
    with pytest.raises(BadToken):
        one.verify(token)
    one.take_over(other)
    assert one.verifies_as(other)
    assert one.verify(token).user == "ann"


def test_development_secret_is_made_once(tmp_path, monkeypatch):
    """For its user only, and long enough for every algorithm."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    secret = development_secret()
    file = tmp_path / "state" / "quotestream" / "development-secret"
    assert file.read_text() == secret
    assert len(secret) == 64
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert development_secret() == secret
    Authenticator(secret=secret, algorithms=list(HMAC_SECRET_BYTES))
    file.write_text(" \n")
    assert len(development_secret()) == 64
    file.write_bytes(b"\xff")
    assert len(development_secret()) == 64
    file.unlink()
    another = development_secret()
    assert another != secret
    assert file.read_text() == another


def test_development_secret_is_in_the_home_folder_by_default(tmp_path, monkeypatch):
    """Where the XDG base directory specification wants it."""
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    secret = development_secret()
    kept = tmp_path / ".local/state/quotestream/development-secret"
    assert kept.read_text() == secret


def test_secret_that_cannot_be_kept_lasts_as_long_as_the_process(tmp_path, monkeypatch):
    """A folder that is a file takes none."""
    monkeypatch.setenv("XDG_STATE_HOME", os.devnull)
    assert len(development_secret()) == 64
    assert development_secret() != development_secret()


NOW = 1_764_000_000.0

GOOD = {"sub": "ann", "exp": NOW + 1, "nbf": NOW, "iat": NOW, "aud": ["a", "b"], "iss": "i"}


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, None), ({"aud": "a"}, None), ({"role": "admin"}, None), ({"jti": "x"}, None),
        ({"sub": ""}, "sub must be 1 to 255 printable characters"),
        ({"role": " "}, "role must be 1 to 255 printable characters"),
        ({"jti": 7}, "jti must be text"),
        ({"exp": None}, "exp must be a finite number"),
        ({"nbf": "1"}, "nbf must be a finite number"),
        ({"iat": True}, "iat must be a finite number"),
        ({"exp": NOW}, "it has expired"), ({"exp": NOW - 1}, "it has expired"),
        ({"nbf": NOW + 4.9, "iat": NOW + 4.9}, None),
        ({"nbf": NOW + 5.1}, "it is not valid yet"),
        ({"iat": NOW + 5.1}, "it was made in the future: the clocks differ"),
        ({"aud": 7}, "aud must be text or a list of texts"),
        ({"aud": ["a", 7]}, "aud must be text or a list of texts"),
        ({"aud": ["b"]}, "it is for another audience"),
        ({"iss": 7}, "iss must be text"), ({"iss": "j"}, "it is from another issuer"),
    ],
)  # a table # fmt: skip
def test_refusal_of_a_claim_says_which(given, problem):
    """To the millisecond, and in words for the maker of the token."""
    if problem is None:
        check_claims(GOOD | given, NOW, 5, "a", "i")
        return
    with pytest.raises(BadClaim) as refused:
        check_claims(GOOD | given, NOW, 5, "a", "i")
    assert str(refused.value) == problem


def test_claims_that_are_missing_are_named():
    """`sub` and `exp` are needed, and the audience and the issuer that the server has."""
    check_claims({"sub": "ann", "exp": NOW + 1}, NOW, 5, None, None)
    for missing, problem in (
        ("sub", "sub must be 1 to 255 printable characters"),
        ("exp", "exp is missing"),
        ("aud", "it is for another audience"),
        ("iss", "it is from another issuer"),
    ):
        given = {name: value for name, value in GOOD.items() if name != missing}
        with pytest.raises(BadClaim) as refused:
            check_claims(given, NOW, 5, "a", "i")
        assert str(refused.value) == problem
