"""Each setting says what it means, is documented, and is hinted at; the documents name no other."""

import re

import pytest

from server.config.environment import unknown_variables
from server.config.help import describe_settings, described_settings, hint_at_setting
from server.config.settings import GROUPS, Settings
from tests.ops.documented import DOCUMENTS, documented, unmatched
from tests.ops.settings_document import DOCUMENT, settings_document

VARIABLE = re.compile(r"[A-Z]+(_[A-Z]+)*")

KNOWN = [name.upper() for name in Settings.__struct_fields__]


def test_every_setting_is_documented():
    """Every setting is in a document, and the tables' first column has no unknown variable."""
    lines = [line for document in DOCUMENTS for line in document.read_text().splitlines()]
    first_cells = [line.split("|")[1] for line in lines if line.startswith("|")]
    undocumented, _ = unmatched(list(documented(lines, VARIABLE)), set(KNOWN))
    _, unknown = unmatched(list(documented(first_cells, VARIABLE)), set(KNOWN))
    assert not undocumented
    assert not unknown


def test_every_setting_says_what_it_means():
    """The meaning is a sentence, and each setting is in a group."""
    described = list(described_settings())
    assert [each.variable for each in described] == KNOWN
    for each in described:
        assert re.fullmatch(r"\S.{8,}\.", each.meaning), each
        assert each.group, each
    assert list(GROUPS.values()) == list(dict.fromkeys(each.group for each in described))


def test_document_of_settings_is_current():
    """docs/settings.md is as `scripts/python -m tests.ops.settings_document` writes it."""
    assert DOCUMENT.read_text() == settings_document()


def test_help_fits_a_narrow_terminal():
    """No line of the settings' help is longer than 80 columns. Defaults are written as in `.env`."""
    lines = describe_settings().splitlines()
    assert max(map(len, lines)) < 80
    for line in (
        "WS_PORT, default 8080",
        "SCALE_UP_LATENCY, default 0.1s",
        "OPS_PORT, default empty",
    ):
        assert f"  {line}" in lines


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("WS_PROT", "WS_PORT"),
        ("WS_WHATEVER", "WS_"),
        ("ws_port", "WS_PORT"),
        ("HTTP_PROT", "HTTP_PORT"),
        ("HTTP_MAX_CONNECTION", "HTTP_MAX_CONNECTIONS"),
        ("JWT_SECERT", "JWT_SECRET"),
        ("REDIS_HOST", "REDIS_URL"),
        ("REDISURL", "REDIS_URL"),
        ("DATABSE_URL", "DATABASE_URL"),
        ("DATABASE_PASSWORD", "DATABASE_"),
        ("LOG_LEVELS", "LOG_LEVEL"),
        ("CATALOG", "CATALOGUE"),
        ("TRUSTED_PROXY", "TRUSTED_PROXIES"),
        ("REDIS_PORT", "REDIS_URL"),
    ],
)
def test_misspelled_variable_is_noticed(variable, nearest):
    """A variable that begins as only ours do, or is similar to a setting, is probably meant for us."""
    [found] = unknown_variables({variable: "x", "WS_PORT": "1"}, KNOWN)
    assert found.variable == variable
    assert found.nearest.startswith(nearest)


FOREIGN = """
HTTP_PROXY http_proxy https_proxy NO_PROXY HTTPS_PORT WS_PROXY HOME USER LOGNAME PORT HOST
HTTP_USER_AGENT HTTP_ACCEPT USER_AGENT LOG_FILE CACHE_DIR XDG_CACHE_HOME WORKER_ID WEB_CONCURRENCY
DBUS_SESSION_BUS_ADDRESS APP_LOG_LEVEL MY_REDIS_URL SQLITE_HISTORY SQLITE_TMPDIR PGDATABASE
REDIS_SERVICE_HOST REDIS_SERVICE_PORT REDIS_PORT_6379_TCP_ADDR QUOTESTREAM_SERVICE_PORT_WS
"""
"""Proxies, the shell's names, CGI, Kubernetes and Docker, and a setting's name behind another word."""


def test_variables_of_other_programs_are_not_ours():
    """They are not reported, and neither are empty variables and the addresses of linked services."""
    links = {"REDIS_PORT": "tcp://10.0.0.7:6379", "QUOTESTREAM_PORT": "tcp://10.0.0.8:1"}
    variables = dict.fromkeys(FOREIGN.split(), "x") | links | {"WS_EMPTY": ""}
    assert unknown_variables(variables, KNOWN) == []


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        (["--port", "9000"], "WS_PORT=9000 or HTTP_PORT=9000 or OPS_PORT=9000"),
        (["--port=9000"], "WS_PORT=9000 or HTTP_PORT=9000 or OPS_PORT=9000"),
        (["--ws-port", "9"], "WS_PORT=9"),
        (["--log-level", "debug"], "LOG_LEVEL=debug"),
        (["--feed", "replay:a.csv"], "FEED=replay:a.csv"),
        (["--replay-speed"], "REPLAY_SPEED=…"),
        (["--replay-loop", "--worker"], "REPLAY_LOOP=…"),
        (["--secret", "hunter2"], "JWT_SECRET=… or ALPACA_SECRET_KEY=…"),
        (["--redis", "hunter2"], "REDIS_URL=…"),
    ],
)
def test_option_that_names_a_setting_leads_to_its_variable(arguments, variables):
    """The hint can be copied, except where the value may be a secret."""
    assert hint_at_setting(*arguments).endswith(f"set the variable {variables}")


@pytest.mark.parametrize("option", ["--nope", "-p", "9000", "--", "-", "port"])
def test_other_arguments_get_no_hint(option):
    """They name no setting."""
    assert hint_at_setting(option, "1") == ""
