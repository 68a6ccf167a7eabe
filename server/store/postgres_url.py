"""DATABASE_URL as libpq's users write it (PostgreSQL 17, §32.1), made into what asyncpg takes.

asyncpg takes each parameter that it does not know for a setting of the server, which then refuses every
connection. So the parameters of libpq are understood here, or refused by name.
"""

from pathlib import Path
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

from server.store.catalogue import StoreMisconfigured

OURS = {"connect_timeout", "client_encoding", "fallback_application_name", "application_name"}
"""Parameters whose place the server's own values take."""

HINTS = {
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "sslcompression",
    "sslsni",
    "load_balance_hosts",
}
"""Parameters that tune a connection and are left out: nothing fails without them."""

DEFAULTS = {
    "channel_binding": ("disable", "prefer"),
    "gssencmode": ("disable", "prefer"),
    "require_auth": (),
    "requirepeer": (),
    "replication": ("false", "off", "no", "0"),
    "sslcertmode": ("disable", "allow"),
    "sslcrldir": (),
}
"""Parameters that asyncpg cannot honour, with the values that ask for nothing."""

FILES = {"sslrootcert", "sslcert", "sslkey", "sslcrl"}
"""Parameters that name a file, without which no connection is made."""


def asyncpg_url(url: str) -> str:
    """Return `url` with the parameters that asyncpg understands.

    Errors: StoreMisconfigured names the parameter that cannot be honoured, or whose file is missing.
    """
    parts = urlsplit(url)
    kept = []
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in DEFAULTS:
            if value not in DEFAULTS[name]:
                raise StoreMisconfigured(f"DATABASE_URL: {name}={value} is not supported")
        elif name in FILES and value != "system" and not Path(value).expanduser().is_file():
            raise StoreMisconfigured(f"DATABASE_URL: {name}: there is no file {value}")
        elif name and name not in OURS and name not in HINTS:
            kept.append(f"{quote(name)}={quote(value, safe='/,:')}")
    return urlunsplit(parts._replace(query="&".join(kept)))
