"""Faults that stop the start: one line names the fault, and the exit code is 2."""

import json
import resource
import socket
import subprocess

import pytest

from server.config.settings import Settings
from tests.cli.command import complaint, run
from tests.processes import SECRET, FreshServer

HEADER = "timestamp_ms,symbol,price,size"

UNKNOWN_CURVE = """-----BEGIN PUBLIC KEY-----
MDIwEAYHKoZIzj0CAQYFK4EEAAYDHgAEQQTZ2r1C/byE/ikZhLo3SB8SqVkkKByx
jFY2IA==
-----END PUBLIC KEY-----
"""
"""secp112r1, a curve that cryptography does not know."""


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PRICE_UPDATE_INTERVAL", "soon"),
        ("PRICE_UPDATE_INTERVAL", "-4s"),
        ("PRICE_UPDATE_INTERVAL", "0"),
        ("WS_PORT", "99999"),
        ("HTTP_PORT", "http"),
        ("WS_MAX_CONNECTIONS", "0"),
        ("WS_MAX_CONNECTIONS_PER_USER", "-1"),
        ("WS_MAX_SYMBOLS", "many"),
        ("WS_COMMAND_RATE", "0.5"),
        ("FEED", "telepathy"),
        ("FEED", "replay:"),
        ("REPLAY_SPEED", "-1"),
        ("REPLAY_LONGEST_GAP", "0"),
        ("CACHE_TTL", "99999999999999999999d"),
        ("BUS_LEASE", "10001d"),
        ("DRAIN_DELAY", "9" * 400),
        ("REPLAY_SPEED", "nan"),
        ("REPLAY_LOOP", "perhaps"),
        ("SIMULATOR_SEED", "x"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "XML"),
        ("WS_ALLOWED_ORIGINS", "*"),
        ("WS_ALLOWED_ORIGINS", "https://a.example,b.example"),
        ("WS_ALLOWED_ORIGINS", "https://a.example/"),
        ("WS_ALLOWED_ORIGINS", "https://*.example"),
        ("HTTP_ALLOWED_ORIGINS", "a.example"),
        ("HTTP_ALLOWED_ORIGINS", "https://a.example/app"),
        ("HTTP_ALLOWED_ORIGINS", "https://a.example:443"),
        ("HTTP_ALLOWED_ORIGINS", "https://user@a.example"),
        ("HTTP_ALLOWED_ORIGINS", "https://ä.example"),
        ("HTTP_ALLOWED_ORIGINS", "https://a.example, *"),
        ("JWT_ALGORITHMS", "RS256"),
        ("TRUSTED_PROXIES", "proxy.example"),
        ("TRUSTED_PROXIES", "10.0.0.1/8"),
        ("TRUSTED_PROXIES", "10.0.0.0/8;::1"),
        ("TRUSTED_PROXIES", "10.0.0.0/33"),
        ("USER_COMMAND_RATE", "0"),
        ("USER_LOOKUP_RATE", "-1"),
        ("ADDRESS_FAILURE_RATE", "0.5"),
        ("ADDRESS_REQUEST_RATE", "many"),
    ],
)
def test_bad_variable_is_named_with_what_is_allowed(tmp_path, variable, value):
    """The line shows the variable, its value and the allowed values."""
    line = complaint(tmp_path, "serve", **{variable: value})
    assert line.startswith(f"quotestream: {variable}={value!r} is not allowed: ")
    assert len(line) > len(f"quotestream: {variable}={value!r} is not allowed: ") + 3


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"FEED": "bus"}, ("FEED='bus'", "REDIS_URL")),
        ({"BUS_OUTAGE": "local", "FEED": "replay:x.csv"}, ("BUS_OUTAGE='local'", "simulator")),
        ({"REDIS_URL": "redis://host:port"}, ("REDIS_URL",)),
        ({"REDIS_URL": "redis://host/0?colour=red"}, ("REDIS_URL", "colour")),
        ({"REDIS_URL": "redis://host/0?protocol=9"}, ("REDIS_URL", "protocol")),
        ({"DATABASE_URL": "postgresql://host/d?sslmode=odd"}, ("DATABASE_URL", "sslmode")),
    ],
)
def test_variables_that_cannot_be_or_do_not_go_together(tmp_path, variables, words):
    """One line says which settings contradict each other."""
    line = complaint(tmp_path, "serve", JWT_SECRET=SECRET, **variables)
    assert all(word in line for word in words)


@pytest.mark.parametrize("variable", ["WS_PORT", "HTTP_PORT"])
def test_busy_port_is_named(tmp_path, variable):
    """The line names the port, whichever program has it."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        line = complaint(tmp_path, "serve", **{variable: port})
    assert line.count("127.0.0.1") == line.count(port) == 1
    assert variable in line
    assert "in use" in line


@pytest.mark.parametrize("name", ["WS_HOST", "HTTP_HOST", "OPS_HOST"])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_development_secret_is_for_this_machine_only(tmp_path, name, host):
    """A server that others can reach prints no token: it says what to set, and ends."""
    line = complaint(tmp_path, "serve", **{name: host, "OPS_PORT": "0"})
    assert "JWT_SECRET is not set" in line
    assert f"{name}={host}" in line


def test_address_that_is_not_this_machine_s_is_named(tmp_path):
    """The line names an address that cannot be bound, or a name that does not exist."""
    for host in ("203.0.113.1", "no.such.host.invalid", "a..b", "a" * 64):
        line = complaint(tmp_path, "serve", JWT_SECRET=SECRET, WS_HOST=host)
        assert host in line
        assert "WS_HOST" in line
        assert "Unknown error" not in line


def test_key_that_cannot_be_used_is_named(tmp_path):
    """The file is missing, the text is not PEM, or an algorithm has no key."""
    text = tmp_path / "text"
    text.write_text("hello")
    curve = tmp_path / "curve.pem"
    curve.write_text(UNKNOWN_CURVE)
    for variables, word in (
        ({"JWT_PUBLIC_KEY": str(tmp_path / "none.pem")}, "none.pem"),
        ({"JWT_PUBLIC_KEY": str(text)}, "PEM"),
        ({"JWT_PUBLIC_KEY": str(curve)}, "JWT_PUBLIC_KEY"),
        ({"JWT_SECRET": SECRET, "JWT_ALGORITHMS": "RS256"}, "RS256"),
    ):
        assert word in complaint(tmp_path, "serve", **variables)


def test_replay_that_cannot_be_is_named(tmp_path):
    """The file is missing, or its header is wrong."""
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    for name, word in (("none.csv", "No such file"), ("other.csv", HEADER)):
        line = complaint(tmp_path, "serve", JWT_SECRET=SECRET, FEED=f"replay:{tmp_path / name}")
        assert name in line
        assert word in line
        assert "FEED" in line


def test_dot_env_is_read_and_the_environment_wins(tmp_path):
    """A `.env` file in the working folder counts as variables. The environment wins over it."""
    (tmp_path / ".env").write_text("WS_MAX_SYMBOLS=none\n")
    assert "WS_MAX_SYMBOLS='none'" in complaint(tmp_path, "serve")
    assert "WS_MAX_SYMBOLS='x'" in complaint(tmp_path, "serve", WS_MAX_SYMBOLS="x")


@pytest.mark.parametrize("content", [b"WS_PORT=0\nA\xff=1\n", b"WS_PORT=0\n= what?\n"])
def test_dot_env_that_cannot_be_read_is_named(tmp_path, content):
    """The file is not UTF-8, or a line sets nothing."""
    (tmp_path / ".env").write_bytes(content)
    assert ".env" in complaint(tmp_path, "serve")


def test_limit_of_descriptors_is_raised(tmp_path):
    """The server raises the shell's limit. It warns if the machine's own limit is too low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        with FreshServer(tmp_path, WS_MAX_CONNECTIONS=str(hard)) as server:
            given = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
            warnings = [
                server.await_event("ulimit -n leaves room for fewer than WS_MAX_CONNECTIONS")
            ]
            assert sum("ulimit" in each["event"] for each in server.log_lines()) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert given == (hard, hard)
    assert [each["connections"] for each in warnings] == [
        hard - 100 - 200
    ]  # for the stores, and for HTTP_MAX_CONNECTIONS


def test_help_tells_what_there_is(tmp_path):
    """The help shows commands, their options, and every setting with its default."""
    top = run(tmp_path, "--help")
    assert top.returncode == 0
    assert all(command in top.stdout for command in ("serve", "token", "watch"))
    text = run(tmp_path, "serve", "--help").stdout
    assert all(name.upper() in text for name in Settings.__struct_fields__)
    assert all(f"default {value}\n" in text for value in ("10000", "30m", "5m", "4s", "0.1s"))
    assert run(tmp_path, "--version").stdout.startswith("quotestream ")


def test_unknown_variables_are_named_at_the_start(tmp_path):
    """The server's log names those that look like its own, from `.env` too; variables of others not."""
    (tmp_path / ".env").write_text("WS_MAX_SYMBOL=7\n")
    with FreshServer(tmp_path, HTTP_PROXY="http://proxy:3128", JWT_SECERT="hunter2") as server:
        assert server.stop() == 0
    warnings = [line["event"] for line in server.log_lines() if line["level"] == "warning"]
    assert warnings == [
        "JWT_SECERT is not a setting and has no effect; the nearest name is JWT_SECRET",
        "WS_MAX_SYMBOL is not a setting and has no effect; the nearest name is WS_MAX_SYMBOLS",
    ]


def test_other_commands_name_unknown_variables_too(tmp_path):
    """They do it on standard error, so that the output stays what it is."""
    done = run(tmp_path, "token", "--user", "a", JWT_SECRET=SECRET, JWT_LEWAY="1s")
    assert done.returncode == 0
    assert done.stderr == (
        "quotestream: JWT_LEWAY is not a setting and has no effect; the nearest name is JWT_LEEWAY\n"
    )
    assert len(done.stdout.split(".")) == 3


def test_option_that_is_a_setting_is_hinted_at(tmp_path):
    """The last line names the variable. It does not repeat a secret."""
    done = run(tmp_path, "serve", "--port", "9000")
    assert done.returncode == 2
    assert "--port is not an option: set the variable WS_PORT=9000" in done.stderr
    done = run(tmp_path, "serve", "--jwt-secret", "hunter2")
    assert "set the variable JWT_SECRET=…" in done.stderr
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize(
    ("variables", "origin"),
    [
        ({}, "simulated from base prices of March 2017 or invented, not today's"),
        ({"CATALOGUE": "empty"}, "simulated from your instruments' base prices, not today's"),
        ({"FEED": "replay:day.csv"}, "recorded trades of day.csv"),
        ({"FEED": "push+simulator:TEST1"}, "from publishers, simulated ones"),
    ],
)
def test_start_says_where_prices_come_from(tmp_path, variables, origin):
    """Nobody takes the shipped prices of 2017 for today's."""
    (tmp_path / "day.csv").write_text(f"{HEADER}\n1764012345678,AAPL,175.50,100\n")
    with FreshServer(tmp_path, JWT_SECRET="", **variables) as server:
        assert server.process.stdout is not None
        line = server.process.stdout.readline().rstrip()
        assert line == f"prices   {origin}"
        assert len(line) < 80


@pytest.mark.parametrize("arguments", [["fly"], ["token"], ["watch"], ["serve", "--fast"]])
def test_bad_arguments_are_usage_errors(tmp_path, arguments):
    """argparse shows the usage, then one line; the exit code is 2."""
    done = run(tmp_path, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: quotestream")


def test_log_is_json_or_for_people_and_as_much_as_was_asked(tmp_path):
    """Each JSON line has event, level and time. The other form is not JSON. A level filters lines."""
    with FreshServer(tmp_path) as server:
        assert server.stop() == 0
        lines = server.own_lines()
    events = [line["event"] for line in lines]
    assert events == ["migration applied"] * 9 + ["started", "stopping", "stopped"]
    assert all({"event", "level", "timestamp"} <= set(line) for line in lines)
    server.log.unlink()
    with FreshServer(tmp_path, LOG_FORMAT="console") as server:
        server.stop()
    assert "started" in server.log.read_text()
    with pytest.raises(json.JSONDecodeError):
        server.log_lines()
    server.log.unlink()
    with FreshServer(tmp_path, LOG_LEVEL="error") as server:
        server.stop()
    assert server.log.read_text() == ""


def test_server_s_output_may_be_closed(tmp_path):
    """The output at the start need not be read."""
    with FreshServer(tmp_path) as server:
        assert isinstance(server.process, subprocess.Popen)
        assert server.process.stdout is not None
        server.process.stdout.close()
        assert server.stop() == 0
