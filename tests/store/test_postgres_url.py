"""DATABASE_URL: what can never work stops the start in one line, what libpq's users write works."""

import os
import subprocess
import sys

import pytest

from server.store.catalogue import StoreMisconfigured
from server.store.postgres_url import asyncpg_url
from tests.cli.command import TIMEOUT, complaint, run
from tests.gateway.wire import Client
from tests.processes import SECRET, ServerProcess


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("", ""),
        ("&", ""),
        ("sslmode=disable&", "?sslmode=disable"),
        ("connect_timeout=10&keepalives=1&sslmode=prefer", "?sslmode=prefer"),
        ("channel_binding=prefer&gssencmode=disable", ""),
        ("target_session_attrs=read-write", "?target_session_attrs=read-write"),
        (
            "host=/var/run/postgresql&options=-c%20geqo%3Doff",
            "?host=/var/run/postgresql&options=-c%20geqo%3Doff",
        ),
    ],
)
def test_parameters_of_libpq(query, kept):
    """Those that asyncpg knows stay, those that nothing depends on are left out."""
    assert asyncpg_url(f"postgresql://u@h/d?{query}") == f"postgresql://u@h/d{kept}"


@pytest.mark.parametrize(
    "parameter", ["channel_binding=require", "gssencmode=require", "requirepeer=me"]
)
def test_parameter_that_cannot_be_honoured_is_named(parameter):
    """Leaving it out would weaken the connection in silence."""
    with pytest.raises(StoreMisconfigured, match=parameter):
        asyncpg_url(f"postgresql://u@h/d?{parameter}")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("?", "?nope=1"), "nope"),
        (("/NAME", "/missing"), "missing"),
        (("quotes@", "nobody@"), "nobody"),
        (("?", "?statement_timeout=x"), "statement_timeout"),
        (("?", "?channel_binding=require"), "channel_binding=require"),
        (
            ("?", "?sslmode=verify-full&sslrootcert=/no/root.crt"),
            "sslrootcert: there is no file /no",
        ),
    ],
)
def test_what_can_never_work_stops_the_start(tmp_path, database_url, database, change, words):
    """In one line, for each command."""
    old, new = (each.replace("NAME", database) for each in change)
    url = (database_url + "?").replace(old, new)
    for command in ("serve", "migrate", "import"):
        line = complaint(tmp_path, command, DATABASE_URL=url)
        assert "DATABASE_URL" in line
        assert words in line


def test_the_first_host_that_answers_is_taken(tmp_path, database_url):
    """Several hosts, a trailing separator, and parameters for libpq."""
    url = database_url.replace("@", "@127.0.0.1:1,") + "?connect_timeout=3&"
    assert run(tmp_path, "import", DATABASE_URL=url).returncode == 0
    with ServerProcess(tmp_path, DATABASE_URL=url) as server, Client(server, "AAPL") as client:
        client.receive()


NOBODY = """
import pwd, sys
def getpwuid(number):
    raise KeyError(f"getpwuid(): uid not found: {number}")
pwd.getpwuid = getpwuid
from server.__main__ import main
main()
"""


@pytest.mark.parametrize(
    ("arguments", "variables", "word"),
    [
        (["migrate"], {"DATABASE_URL": "postgresql://127.0.0.1:1/d"}, "DATABASE_URL"),
        (["import"], {"DATABASE_URL": "postgresql://127.0.0.1:1/d"}, "DATABASE_URL"),
        (["serve"], {"DATABASE_URL": "postgresql://127.0.0.1:1/d"}, "DATABASE_URL"),
        (["migrate"], {}, "SQLITE_PATH"),
        (["import"], {}, "SQLITE_PATH"),
        (["token", "--user", "ann"], {"JWT_SECRET": ""}, "JWT_SECRET"),
    ],
)
def test_user_without_a_name_is_one_line(tmp_path, arguments, variables, word):
    """In a container the user's number may be in no list, and there may be no home."""
    done = subprocess.run(
        [sys.executable, "-c", NOBODY, *arguments],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "WS_PORT": "0",
            "HTTP_PORT": "0",
            "JWT_SECRET": SECRET,
            **variables,
        },
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    [line] = done.stderr.splitlines()
    assert word in line
