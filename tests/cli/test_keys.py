"""Weak keys stop the start with one line, which does not show them."""

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from server.gateway.auth import Authenticator, BadKey
from tests.cli.command import complaint, run
from tests.processes import SECRET, ServerProcess, make_token


def rsa_pem(bits: int) -> str:
    """Return a public key's text."""
    key = rsa.generate_private_key(65537, bits).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        ("short-canary", "32 bytes"),
        ("x" * 31, "repeated"),
        ("x" * 64, "repeated"),
        (" " * 40, "blank"),
        ("\t\n " * 20, "blank"),
        (SECRET[:31], "32 bytes"),
        (SECRET + "\n", "white space"),
        (" " + SECRET, "white space"),
        ("é" * 15 + "a", "32 bytes"),
        (rsa_pem(2048).strip(), "PEM"),
        ("ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQC7", "SSH"),
        (SECRET + "\udcff", "UTF-8"),
    ],
)
def test_weak_secret_is_refused(secret, words):
    """The secret is too short, blank, one repeated character, padded, or a public key."""
    with pytest.raises(BadKey, match="JWT_SECRET") as refused:
        Authenticator(secret=secret)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    assert secret.strip() == "" or secret not in str(refused.value)


def test_each_algorithm_needs_a_secret_as_long_as_its_hash():
    """RFC 7518 §3.2: 32, 48 and 64 bytes."""
    secret = "0123456789abcdef" * 4
    for algorithm, size in (("HS256", 32), ("HS384", 48), ("HS512", 64)):
        Authenticator(secret=secret[:size], algorithms=[algorithm])
        with pytest.raises(BadKey, match=f"shorter than {size} bytes"):
            Authenticator(secret=secret[: size - 1], algorithms=[algorithm])
    with pytest.raises(BadKey, match="HS512"):
        Authenticator(secret=secret[:48], algorithms=["HS256", "HS512"])


@pytest.mark.parametrize(("bits", "good"), [(1024, False), (2047, False), (2048, True)])
def test_short_modulus_is_refused(bits, good):
    """RSA keys have 2048 bits at least."""
    if good:
        Authenticator(public_key=rsa_pem(bits))
    else:
        with pytest.raises(BadKey, match=f"JWT_PUBLIC_KEY.*{bits} bits"):
            Authenticator(public_key=rsa_pem(bits))


def test_weak_key_stops_every_command(tmp_path):
    """One line without the secret; the exit code is 2."""
    for arguments in (["serve"], ["token", "--user", "ann"], ["watch", "AAPL"]):
        line = complaint(tmp_path, *arguments, JWT_SECRET="canary-secret")
        assert line.startswith("quotestream: JWT_SECRET is shorter than 32 bytes")
        assert "canary" not in line
    assert "1024 bits" in complaint(tmp_path, "serve", JWT_PUBLIC_KEY=rsa_pem(1024))


@pytest.mark.parametrize("value", ["canary/secret+1==", "canary secret", "x/" * 3000 + "canary"])
def test_secret_in_the_other_key_s_place_is_not_shown(tmp_path, value):
    """JWT_PUBLIC_KEY may name a file. A text that does not look like a file's name is not repeated."""
    line = complaint(tmp_path, "serve", JWT_PUBLIC_KEY=value)
    assert line.startswith("quotestream: JWT_PUBLIC_KEY")
    assert "canary" not in line


def test_dot_env_is_taken_as_it_is_written(tmp_path):
    """`$` and `${HOME}` in a secret stay: the key is the same as from the environment."""
    secret = "a${HOME}b$HOME-$c-$(id)-0123456789-abcdef"
    (tmp_path / ".env").write_text(f"SOME={secret}\nJWT_SECRET='{secret}'\n")
    signed = run(tmp_path, "token", "--user", "ann").stdout.strip()
    assert Authenticator(secret=secret).verify(signed).user == "ann"


def test_padded_public_key_is_read(tmp_path):
    """The line feed behind a key in PEM does not belong to it."""
    with ServerProcess(tmp_path, JWT_PUBLIC_KEY=f"\n{rsa_pem(2048)}\n") as server:
        status, _ = server.request("GET", "/health", Authorization=f"Bearer {make_token()}")
        assert status == 200


@pytest.mark.parametrize("user", ["", " ", "a\nb", "x" * 256, "a\u202eb"])
def test_token_is_made_for_users_that_a_server_takes(tmp_path, user):
    """The same rule as for a token that is shown."""
    done = run(tmp_path, "token", f"--user={user}", JWT_SECRET=SECRET)
    assert done.returncode == 2
    assert "printable" in done.stderr.splitlines()[-1]
    done = run(tmp_path, "token", "--user=ann", f"--role={user}", JWT_SECRET=SECRET)
    assert done.returncode == 2


def test_token_of_a_publisher_names_its_symbols(tmp_path):
    """`--symbols` becomes the claim; without it there is none, and an empty one allows nothing."""
    for given, claim in (
        (["--symbols=aapl,BTC*"], ["aapl", "BTC*"]),
        (["--symbols="], []),
        ([], None),
    ):
        arguments = ("token", "--user=press", "--role=publisher", *given)
        signed = run(tmp_path, *arguments, JWT_SECRET=SECRET).stdout.strip()
        claims = jwt.decode(signed, SECRET, algorithms=["HS256"])
        assert claims["role"] == "publisher"
        assert claims.get("symbols") == claim
