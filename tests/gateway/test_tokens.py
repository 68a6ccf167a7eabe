"""Tokens: their keys, their renewal and end, and that they are written nowhere."""

import base64
import hmac
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from server.gateway.auth import Authenticator, BadKey, BadToken
from tests.gateway.wire import Client, RawClient, head, new_user, refusal
from tests.processes import ServerProcess, eventually, make_token
from tests.stopwatch import Stopwatch

PRIVATE_KEYS: dict[str, Any] = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}

WHEEL = 1.0
"""Seconds after a token's end within which the connection is closed."""


def public_pem(algorithm: str) -> str:
    """Return the public key's text."""
    key = PRIVATE_KEYS[algorithm].public_key()
    pem: bytes = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem.decode()


def signed(algorithm: str, **claims: Any) -> str:
    """Return a token by the private key of `algorithm`."""
    claims = {"sub": new_user(), "exp": time.time() + 600, **claims}
    return jwt.encode(claims, PRIVATE_KEYS[algorithm], algorithm)


def forged(pem: str) -> str:
    """Return a token "signed" by HS256 with a public key's text. PyJWT refuses to make one."""
    parts = [{"alg": "HS256", "typ": "JWT"}, {"sub": "mallory", "exp": time.time() + 600}]
    text = ".".join(_base64(json.dumps(part).encode()) for part in parts)
    return f"{text}.{_base64(hmac.digest(pem.encode(), text.encode(), 'sha256'))}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.mark.parametrize(
    ("algorithm", "as_file"), [("RS256", False), ("ES256", True), ("EdDSA", False)]
)
def test_public_key_lets_in_who_the_private_one_signed(tmp_path, algorithm, as_file):
    """A server with a public key, as text or file, takes that key's tokens and no forged ones."""
    key = public_pem(algorithm)
    if as_file:
        (tmp_path / "key.pem").write_text(key)
    variable = str(tmp_path / "key.pem") if as_file else key
    with ServerProcess(tmp_path, JWT_PUBLIC_KEY=variable, JWT_ALGORITHMS=algorithm) as server:
        with Client(server, token=signed(algorithm)) as client:
            assert client.is_answered()
        others = [signed(other) for other in PRIVATE_KEYS if other != algorithm]
        for token in (forged(key), forged(key.strip()), make_token(), *others):
            assert refusal(server.url(None, token)).verdict == (401, "unauthorized")


def test_each_algorithm_is_bound_to_its_key():
    """A public key's text is never taken for a secret, alone or beside one."""
    key, secret = public_pem("RS256"), "a secret of another length than the key"
    for authenticator in (
        Authenticator(public_key=key),
        Authenticator(public_key=key, secret=secret),
    ):
        assert authenticator.verify(signed("RS256", sub="ann")).user == "ann"
        with pytest.raises(BadToken):
            authenticator.verify(forged(key))
    assert authenticator.verify(authenticator.sign("bob", 60, "admin"))[:2] == ("bob", "admin")


@pytest.mark.parametrize(
    "keys",
    [
        {"secret": "s", "algorithms": ["HS256", "RS256"]},
        {"public_key": public_pem("RS256"), "algorithms": ["HS256"]},
        {"secret": "s", "algorithms": ["none"]},
        {"public_key": "-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----"},
        {"public_key": "/nowhere/key.pem"},
        {"public_key": str(Path(__file__))},
    ],
)
def test_algorithm_without_a_key_stops_the_start(keys):
    """An allowed algorithm without a key that can verify it is refused at the start."""
    with pytest.raises(BadKey, match="JWT_"):
        Authenticator(**keys)


def test_token_s_end_closes_whoever_did_not_renew(server):
    """At a token's end its connection is closed with 4401; one renewed by `auth` goes on."""
    user = new_user()
    end, watch = time.time() + 4, Stopwatch(server.process.pid)
    token = make_token(user, exp=end)
    with Client(server, "AAPL", token=token) as late, Client(server, token=token) as renewed:
        answer = renewed.ask("auth", token=make_token(user), id=4)
        assert answer == {"type": "ack", "action": "auth", "symbols": [], "id": 4}
        assert late.read_to_end()[0] == 4401
        assert end <= time.time() < end + WHEEL + 1 + watch.waited
        assert renewed.is_answered()


def test_bad_renewal_is_refused_and_the_connection_goes_on(server):
    """`auth` with a bad token, or a good one of another user, changes nothing."""
    user = new_user()
    bad = [make_token(new_user()), make_token(user, -1), make_token(user)[:-8], "garbage", ""]
    with Client(server, token=make_token(user)) as client:
        for number, token in enumerate(bad):
            answer = client.ask("auth", token=token, id=number)
            assert (answer["type"], answer["code"]) == ("error", "unauthorized")
            assert answer["id"] == number
            assert token not in answer["message"] or not token
        assert client.is_answered()


def test_renewal_with_a_shorter_token_ends_with_it(server):
    """The newest token counts, also if it ends sooner than the one before."""
    user = new_user()
    with Client(server, token=make_token(user)) as client:
        assert client.ask("auth", token=make_token(user, 1.2))["type"] == "ack"
        assert client.read_to_end() == (4401, [])


def test_no_token_reaches_log_or_metrics(tmp_path):
    """No log has the token of a connection that was opened, good or bad."""
    user = new_user()
    good, renewal, other, bad = (
        make_token(user),
        make_token(user, 700),
        make_token(),
        "bad-header.bad-claims.bad-signature",
    )
    with ServerProcess(tmp_path, LOG_LEVEL="debug") as server:
        with Client(server, "AAPL,NOPE", token=good) as client:
            client.receive()
            for token in (renewal, other, bad):
                client.ask("auth", token=token)
            client.connection.send(f'{{"action":"auth","token":"{good}')
            client.connection.send(f'{{"action":"{good}"}}')
        with Client(server, token=bad, additional_headers={"Authorization": f"Bearer {good}"}):
            pass
        assert_unseen(server, [good, renewal, other, bad])


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET /ws/quotes?symbols=AAPL, MSFT&token=SECRET HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /ws/quotes?symbols=\xc3\xa9&token=SECRET HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /ws/quotes?token=SECRET\r\n\r\n",
        b"GET /ws/quotes HTTP/1.1\r\nHost: a\r\nAuthorization Bearer SECRET\r\n\r\n",
        head("//[/ws/quotes?token=SECRET"),
        head("/elsewhere?token=SECRET"),
        head("/ws/quotes?token=SECRETx"),
        head("/ws/quotes?token=%ffSECRET"),
        head("/ws/quotes?token=SECRET&symbols=SECRET"),
        head("/ws/quotes", Authorization="Bearer SECRETx"),
        head("/ws/quotes", Authorization="Bearer SECRET, Bearer SECRET"),
        head("/ws/quotes", Authorization="Bearer SECRET", Cookie="x" * 20000),
    ],
)
def test_no_token_of_a_refused_request_reaches_the_log(tmp_path, request_head):
    """A request that is refused is not quoted, as it may hold a good token."""
    token = make_token()
    with ServerProcess(tmp_path, LOG_LEVEL="debug") as server:
        with RawClient(server, request_head.replace(b"SECRET", token.encode())) as client:
            answer = client.answer()
        assert answer.status >= 400
        eventually(lambda: '"connection refused"' in server.log.read_text())
        assert_unseen(server, [token])
        assert token not in answer.body.decode()


def assert_unseen(server: ServerProcess, tokens: list[str]) -> None:
    """No part of a token that identifies it is in the log or the metrics."""
    seen = server.log.read_text() + server.get("/metrics")[1] + "\n".join(server.lines)
    for token in tokens:
        assert token.rpartition(".")[2] not in seen
        assert ".".join(token.split(".")[:2]) not in seen
