"""No output of a server has tokens, keys or passwords, whatever fails."""

import json
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import jwt
import pytest

from server.config.environment import BadSetting
from server.config.loading import load_settings
from server.config.redaction import redact
from server.store.store import StoreOptions
from tests.faulty import FAULT
from tests.gateway.wire import TEXT, Client, RawClient, frame, head, new_user
from tests.ops.exchange import ask
from tests.processes import ServerProcess, eventually, make_token

ROOT = str(Path(__file__).parents[2])

SECRET = 'canary $secret {of} the tests, 32 bytes "or" longer'

DATABASE_PASSWORD, REDIS_PASSWORD = "canary-p@ss/word", "canary-redis"


class FaultyServer(ServerProcess):
    """See `tests/faulty.py`."""

    module = "tests.faulty"


def forms(secret: str) -> set[str]:
    """Return the forms in which a secret may be written."""
    return {secret, json.dumps(secret)[1:-1], repr(secret)[1:-1], quote(secret, safe="")}


def output_of(server: ServerProcess) -> str:
    """Return all outputs of a server, and its command line in `ps`."""
    pages = [
        server.get(path)[1] for path in ("/metrics", "/health", "/readyz", "/docs", "/nowhere")
    ]
    return "\n".join(
        [
            server.log.read_text(),
            *server.lines,
            *pages,
            Path(f"/proc/{server.process.pid}/cmdline").read_text(),
        ]
    )


@pytest.mark.parametrize(("form", "stores"), [("console", False), ("json", True)])
def test_no_secret_is_in_any_output(tmp_path, form, stores):
    """A server, perhaps without its stores, gets requests that fail and requests that break it."""
    claims = {"sub": "canary", "exp": time.time() + 600, "role": "admin"}
    token = jwt.encode(claims, SECRET, "HS256")
    variables = {
        "JWT_SECRET": SECRET,
        "LOG_FORMAT": form,
        "LOG_LEVEL": "debug",
        "PYTHONPATH": ROOT,
    }
    addresses = {
        "DATABASE_URL": f"postgresql://canary:{quote(DATABASE_PASSWORD, safe='')}@127.0.0.1:1/canary",
        "REDIS_URL": f"redis://canary:{REDIS_PASSWORD}@127.0.0.1:1/0",
    }
    bodies = []
    with FaultyServer(tmp_path, **variables, **(addresses if stores else {})) as server:
        for target in (
            f"/ws/quotes?symbols={FAULT}&token={token}",
            f"/ws/quotes?symbols=NOPE&token={token}",
            f"/ws/quotes?interval={token}&token={token}",
            f"/ws/quotes?resume={token}&token={token}",
            f"/ws/quotes?token={token}x",
            f"/ws/{token}?token={token}",
            f"//[?token={token}",
        ):
            with RawClient(server, head(target, Authorization=None)) as client:
                client.is_over()
                bodies.append(client.received.decode())
        with RawClient(server, head(f"/ws/quotes?token={token}")) as client:
            assert client.read_head().startswith("HTTP/1.1 101 ")
            for command in (
                {"action": token},
                {"action": "throttle", "interval": token},
                {"action": "auth", "token": token + "x"},
            ):
                client.send(frame(TEXT, json.dumps(command).encode()))
                bodies.append(json.dumps(client.read_message()))
        bearer = f"Authorization: Bearer {token}"
        targets = [
            f"/instruments?query={FAULT}",
            "/instruments?query=a",
            "/quotes?symbols=AAPL",
            f"/instruments?limit={token}&query=a",
            "/health",
            f"/%0a?token={token}",
        ]
        bodies += [ask(server, "GET", target, bearer).body.decode() for target in targets]
        assert json.loads(bodies[10])["error"] == {
            "code": "internal_error",
            "message": "something went wrong here",
        }
        seen = output_of(server) + "".join(bodies)
        assert "connection failed" in seen
        assert "request failed" in seen
        assert "Traceback (most recent call last)" in seen
        assert "╭" not in seen, "rich's tracebacks show local variables"
    for secret in (SECRET, DATABASE_PASSWORD, REDIS_PASSWORD, token, token.rpartition(".")[2]):
        for written in forms(secret):
            assert written not in seen


def test_tracebacks_are_sampled(tmp_path):
    """Each place writes one traceback a second, with the number left out, independent of others."""
    with FaultyServer(tmp_path, PYTHONPATH=ROOT) as server:
        started = time.monotonic()
        for _ in range(100):
            crash(server)
        ask(server, "GET", f"/instruments?query={FAULT}", f"Authorization: Bearer {make_token()}")
        seconds = time.monotonic() - started
        assert len(tracebacks(server, "connection failed")) <= seconds + 1
        eventually(lambda: len(tracebacks(server, "request failed")) == 1)

        def is_counted() -> bool:
            crash(server)
            lines = tracebacks(server, "connection failed")
            return sum(line["left_out"] + 1 for line in lines) > 100

        eventually(is_counted)
        with Client(server, "AAPL") as client:
            assert client.is_answered()


def crash(server: ServerProcess) -> None:
    """Send a request that fails."""
    with RawClient(
        server, head(f"/ws/quotes?symbols={FAULT}&token={make_token(new_user())}")
    ) as one:
        assert one.is_over()


def tracebacks(server: ServerProcess, event: str) -> list[dict[str, int]]:
    """Return the log's lines of this event, each with a traceback."""
    lines = [line for line in server.log_lines() if line["event"] == event]
    assert all("Traceback" in line["exception"] for line in lines)
    return lines


@pytest.mark.parametrize(
    "text",
    [
        "canary postgresql://u:SECRET@h/d",
        "redis://:SECRET@h",
        "//u:p@SECRET@h",
        "/ws?token=SECRET&a=b",
        "Authorization: Bearer SECRET",
        "b'bearer SECRET'",
        "password='SECRET'",
        'api_key="SECRET"',
        "?sslpassword=SECRET",
        "-----BEGIN PRIVATE KEY-----\nSECRET",
        f"x{make_token()}SECRET",
        "-----BEGIN RSA PRIVATE KEY-----\nSECRET\n-----END RSA PRIVATE KEY-----",
        f"%22{make_token()}SECRET%22",
        f"bearer.{make_token()}SECRET",
        "Sec-WebSocket-Protocol: quotestream.v1.json, bearer.SECRET",
    ],
)
def test_forms_of_secrets_are_known(text):
    """Secrets of clients, which are not in the settings, are recognized by their form."""
    assert "SECRET" not in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "the token is not valid: it has expired",
        "server.gateway.handshake",
        "https://host:8080/a?b=c",
        "127.0.0.1:5432",
        "user@host",
        "a token is required: Authorization",
        "JWT_SECRET is blank",
    ],
)
def test_other_words_stay(text):
    """Other words are not hidden."""
    assert redact(text) == text


@pytest.mark.parametrize(
    "part", ["ey", "eyA", "//:", "token", "bearer ", "a.", "eyJ.", "//a:b", "='"]
)
def test_hiding_takes_no_time(part):
    """Redacting 64 KB of any text, which clients may choose, takes under a tenth of a second."""
    text = part * (65536 // len(part))
    started = time.process_time()
    redact(text)
    assert time.process_time() - started < 0.5


def test_settings_do_not_show_themselves():
    """The `repr` of settings has no secrets, as a traceback or debugger may show it."""
    url = "postgresql://u:canary@h/d"
    settings = load_settings({"JWT_SECRET": "canary", "DATABASE_URL": url})
    assert "canary" not in repr(settings) + repr(StoreOptions(database_url=url, redis_url=url))


def test_uncaught_exceptions_hide_secrets():
    """Exceptions that end a process, a thread or a destructor are written without secrets."""
    program = """
import threading
from server.ops.tracebacks import install_hooks
install_hooks()
class Thing:
    def __del__(self): raise ValueError("1 token=canary")
Thing()
def fail(): raise ValueError("2 redis://u:canary@h")
thread = threading.Thread(target=fail); thread.start(); thread.join()
raise ExceptionGroup("3", [ValueError("3 Bearer canary")])
"""
    command = [sys.executable, "-c", program.replace("canary", "can'+'ary").replace('"', "'")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert "canary" not in done.stderr
    assert all(f"{number} " in done.stderr for number in (1, 2, 3))


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATABASE_URL", "postgresql://u:canary"),
        ("DATABASE_URL", "postgresql://u:canary/d"),
        ("DATABASE_URL", "postgresql://h:x/d?password=canary"),
        ("REDIS_URL", "redis://h/0?password=canary"),
        ("REDIS_URL", "redis://h:x?ssl_password=canary"),
        ("REDIS_URL", "rediss://:canary@h:x"),
    ],
)
def test_complaint_shows_no_password(variable, value):
    """The error for an address with a password does not repeat the password."""
    with pytest.raises(BadSetting) as refused:
        load_settings({variable: value})
    assert str(refused.value).startswith(f"{variable}=")
    assert "canary" not in str(refused.value)
