"""Tokens from the command line, and the secret of a machine without a configured one."""

import shlex
import stat
import subprocess
import time

import jwt
import pytest

from tests.cli.command import TIMEOUT, complaint, environment, run
from tests.gateway.wire import Client
from tests.processes import SECRET, ServerProcess

PUBLIC_KEY = """-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=
-----END PUBLIC KEY-----
"""
"""RFC 8410 §10.1's sibling for Ed25519: RFC 8037 appendix A.2."""


def test_token_says_what_was_asked_for(tmp_path):
    """The token has user, lifetime and role, and the configured audience and issuer."""
    done = run(
        tmp_path,
        "token",
        "--user",
        "alice",
        "--ttl",
        "1h",
        "--role",
        "admin",
        JWT_SECRET=SECRET,
        JWT_AUDIENCE="quotes",
        JWT_ISSUER="https://issuer.example",
    )
    claims = jwt.decode(
        done.stdout.strip(), SECRET, ["HS256"], audience="quotes", issuer="https://issuer.example"
    )
    assert abs(claims.pop("exp") - time.time() - 3600) < 10
    assert claims == {
        "sub": "alice",
        "role": "admin",
        "aud": "quotes",
        "iss": "https://issuer.example",
    }


@pytest.mark.parametrize("ttl", ["soon", "-1h", "0", "1 year"])
def test_bad_lifetime_is_refused(tmp_path, ttl):
    """Only a duration is accepted."""
    done = run(tmp_path, "token", "--user", "alice", f"--ttl={ttl}")
    assert done.returncode == 2
    assert ttl in done.stderr.splitlines()[-1]


def test_public_key_cannot_sign(tmp_path):
    """With only a public key configured, the command cannot make tokens."""
    line = complaint(tmp_path, "token", "--user", "alice", JWT_PUBLIC_KEY=PUBLIC_KEY)
    assert "JWT_SECRET" in line


def test_client_without_a_token_learns_how_to_give_one(tmp_path):
    """With only a public key configured, `watch` cannot make its token."""
    line = complaint(tmp_path, "watch", "AAPL", JWT_PUBLIC_KEY=PUBLIC_KEY)
    assert "QUOTESTREAM_TOKEN" in line
    assert "--token-file" in line


def test_development_needs_no_secret(tmp_path):
    """The printed token connects, so does one made later, also after a restart; the secret is the
    user's own file, and neither it nor a token is logged.
    """
    with ServerProcess(tmp_path, JWT_SECRET="") as server:
        printed = server.lines[3].removeprefix("token").strip()
        with Client(server, "AAPL", token=printed) as client:
            assert client.is_answered()
        made = run(tmp_path, "token", "--user", "bob").stdout.strip()
        assert server.stop() == 0
    with ServerProcess(tmp_path, JWT_SECRET="") as server:
        for token in (printed, made):
            with Client(server, "AAPL", token=token) as client:
                assert client.is_answered()
    (file,) = tmp_path.glob("quotestream/*secret*")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    log = server.log.read_text()
    assert "development secret" in log
    for word in (file.read_text(), printed, made, printed.rpartition(".")[2]):
        assert word not in log


@pytest.mark.parametrize("obstacle", ["quotestream", "quotestream/development-secret"])
def test_state_that_cannot_be_kept(tmp_path, obstacle):
    """If the secret's file is unusable, a server starts nevertheless, and its token connects."""
    if "/" in obstacle:
        (tmp_path / obstacle).mkdir(parents=True)
    else:
        (tmp_path / obstacle).write_text("a file where a folder should be")
    with ServerProcess(tmp_path, JWT_SECRET="") as server:
        printed = server.lines[3].removeprefix("token").strip()
        with Client(server, "AAPL", token=printed) as client:
            assert client.is_answered()


@pytest.mark.parametrize(
    "variables", [{}, {"JWT_AUDIENCE": "quotes"}, {"XDG_STATE_HOME": "/dev/null"}]
)
def test_printed_line_connects(tmp_path, variables):
    """Pasted into a shell it shows quotes. Only where `watch` could not make a token by itself, it
    names one, and that outside the arguments that `ps` shows.
    """
    with ServerProcess(tmp_path, JWT_SECRET="", **variables) as server:
        line = server.lines[4].removeprefix("connect").strip()
        words = shlex.split(line)
        arguments = words[1:] if not variables else words[2:]
        assert arguments == ["watch", "AAPL", "MSFT", "TSLA", "--url", server.quotes_url]
        assert words[0].startswith("QUOTESTREAM_TOKEN=") == bool(variables)
        with subprocess.Popen(
            line,
            shell=True,
            cwd=tmp_path,
            env=environment(XDG_STATE_HOME=str(tmp_path)),
            text=True,
            stdout=subprocess.PIPE,
            start_new_session=True,
        ) as shell:
            assert shell.stdout is not None
            seen = {shell.stdout.readline().split()[1] for _ in range(3)}
            subprocess.run(["pkill", "-g", str(shell.pid)], timeout=TIMEOUT, check=False)
    assert seen == {"AAPL", "MSFT", "TSLA"}
