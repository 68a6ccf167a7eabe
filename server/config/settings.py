"""All settings, with their types, meanings and defaults. `server/config/loading.py` reads them."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from server.config.values import (
    ByteCount,
    Count,
    DatabaseUrl,
    Delay,
    DelayText,
    Duration,
    FeedChoice,
    HostNames,
    NameList,
    Names,
    Networks,
    Origins,
    OriginsOrAny,
    Percent,
    Port,
    RedisUrl,
    Seconds,
    Session,
    Share,
    Switch,
    Text,
    WebSocketUrl,
)
from server.sessions.calendar import ALWAYS

GROUPS = {
    "ws_host": "Network",
    "jwt_secret": "Tokens",
    "feed": "Prices",
    "database_url": "Database and cache",
    "bus_lease": "Several instances",
    "ws_max_connections": "Limits",
    "ws_ping_interval": "Timing of connections",
    "workers_min": "Workers",
    "ws_health_check_interval": "Health and log",
}
"""The headings of the groups of settings, each by its first one."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting with its type, its meaning and its default. Its variable is the name in capitals.

    `Meta.description` says which values are allowed. The text behind it says what the setting means.
    """

    ws_host: Annotated[Text, "Address of the streaming port."] = "127.0.0.1"
    ws_port: Annotated[Port, "Streaming port: WebSocket clients connect to it."] = 8080
    ws_allowed_origins: Annotated[
        Origins,
        Meta(description="origins such as https://example.com with commas; empty: any"),
        "Origins of the web pages that may connect.",
    ] = Origins()
    http_host: Annotated[Text, "Address of the HTTP port."] = "127.0.0.1"
    http_port: Annotated[Port, "HTTP port: the API for other services, health and metrics."] = 8081
    http_allowed_origins: Annotated[
        OriginsOrAny,
        Meta(description="origins such as https://example.com with commas, or *; empty: none"),
        "Origins of the web pages that may use the API (CORS); *: any page, as it needs a token.",
    ] = OriginsOrAny()
    ops_host: Annotated[Text, "Address of the operators' port."] = "127.0.0.1"
    ops_port: Annotated[
        Annotated[int, Meta(ge=0, le=65535)] | None,
        Meta(description="a port from 0 to 65535; empty: operators' pages are on HTTP_PORT"),
        "Operators' port: it takes /metrics, /health, /docs, /ops off the HTTP port.",
    ] = None
    ops_allowed_hosts: Annotated[
        HostNames,
        Meta(description="names such as ops.example.com with commas, or *; empty: none"),
        "Names of OPS_PORT beside addresses, localhost, OPS_HOST and this machine's name; *: any.",
    ] = HostNames()
    trusted_proxies: Annotated[
        Networks,
        Meta(description="networks such as 10.0.0.0/8 with commas; empty: none"),
        "Networks of the proxies whose X-Forwarded-For the server believes.",
    ] = Networks()
    ws_compression: Annotated[
        Literal["off", "shared"],
        Meta(description="off or shared"),
        "shared: each update is compressed once for all clients that can take it.",
    ] = "off"
    jwt_secret: Annotated[
        str,
        Meta(description="the key of HS256, HS384 or HS512"),
        "Secret that signs tokens, 32 bytes or more. Without a key the server makes a development "
        "secret.",
    ] = ""
    jwt_public_key: Annotated[
        str,
        Meta(description="a public key in PEM, or its file"),
        "RSA, P-256 or Ed25519 key that verifies tokens.",
    ] = ""
    jwt_algorithms: Annotated[
        Names, "Further algorithms to accept, such as HS384 or RS512; each must fit a key."
    ] = NameList()
    jwt_audience: Annotated[Text, "Audience that a token's `aud` must name; empty: any."] = ""
    jwt_issuer: Annotated[Text, "Issuer that a token's `iss` must name; empty: any."] = ""
    jwt_leeway: Annotated[
        DelayText, "How far `nbf` and `iat` of a token may be ahead of this machine's clock."
    ] = Delay(5)
    quotestream_token: Annotated[
        str,
        Meta(description="a token (JWT)"),
        "Token of `watch`, `publish`, `bars` and `export`; empty: they make one with the secret.",
    ] = ""
    feed: Annotated[
        FeedChoice,
        Meta(
            description="simulator, push, stream:KEY, VENUE:SYMBOLS, replay:PATH or bus; "
            "several with +, then simulator:SYMBOLS"
        ),
        "Source of prices: the simulator, publishers, a Redis Stream, recorded trades in a CSV file, "
        "other instances, or a venue (coinbase, kraken, binance, alpaca).",
    ] = FeedChoice("simulator")
    price_update_interval: Annotated[Seconds, "Interval in which the simulator moves prices."] = (
        Duration(4)
    )
    simulator_seed: Annotated[
        int | None,
        Meta(description="a whole number"),
        "Number that makes the simulator's prices repeatable; empty: random.",
    ] = None
    replay_speed: Annotated[
        float,
        Meta(ge=0, le=1e6, description="a number from 0 to 1000000"),
        "How many times faster than recorded a replay runs; 0: as fast as the server takes it.",
    ] = 1.0
    replay_loop: Annotated[Switch, "1: a replay begins again at its end."] = False
    replay_longest_gap: Annotated[
        Seconds, "Longest gap between two rows, in recorded time; a replay skips longer ones."
    ] = Duration(600)
    quote_quiet_after: Annotated[
        Seconds, "Time without a trade after which clients are told that a symbol is quiet."
    ] = Duration(60)
    session: Annotated[Session, "Trading hours. At an opening the day's values begin anew."] = (
        ALWAYS
    )
    coinbase_url: Annotated[
        WebSocketUrl, Meta(description="ws://… or wss://…"), "Address of Coinbase's feed."
    ] = WebSocketUrl("wss://ws-feed.exchange.coinbase.com")
    kraken_url: Annotated[
        WebSocketUrl, Meta(description="ws://… or wss://…"), "Address of Kraken's feed."
    ] = WebSocketUrl("wss://ws.kraken.com/v2")
    binance_url: Annotated[
        WebSocketUrl, Meta(description="ws://… or wss://…"), "Address of Binance's feed."
    ] = WebSocketUrl("wss://stream.binance.com:9443")
    alpaca_url: Annotated[
        WebSocketUrl, Meta(description="ws://… or wss://…"), "Address of Alpaca's feed."
    ] = WebSocketUrl("wss://stream.data.alpaca.markets/v2/iex")
    alpaca_key_id: Annotated[str, Meta(description="a key's id"), "Key for Alpaca's feed."] = ""
    alpaca_secret_key: Annotated[
        str, Meta(description="the key's secret"), "Secret for Alpaca's feed."
    ] = ""
    push_lists_symbols: Annotated[
        Switch, "1: a published trade of an unknown symbol lists the symbol."
    ] = False
    source_priority: Annotated[
        Names, "Sources of published prices, the first source first; others come last."
    ] = NameList()
    source_silent_after: Annotated[
        Seconds, "Silence of a symbol's source after which the next source has its price."
    ] = Duration(10)
    price_band: Annotated[
        Share,
        Meta(description="a share such as 10% or 0.1; or off"),
        "Distance from the last price beyond which a published trade is held back.",
    ] = Share(0)
    trades_memory: Annotated[
        ByteCount,
        Meta(description="bytes: 64MiB, 512KiB or a plain number"),
        "Memory for the last trades of all symbols; half of it is for revisions if FEED takes trades.",
    ] = ByteCount(64 * 2**20)
    database_url: Annotated[
        DatabaseUrl,
        Meta(description="postgresql://…, else a SQLite file"),
        "Postgres that keeps the instruments and last prices.",
    ] = DatabaseUrl()
    database_pool_size: Annotated[
        int, Meta(ge=2, description="connections, 2 or more"), "Connections to Postgres."
    ] = 10
    database_pooler: Annotated[
        Literal["", "transaction"],
        Meta(description="transaction, if DATABASE_URL is such a pooler's (PgBouncer); else empty"),
        "Kind of pooler between the server and Postgres.",
    ] = ""
    database_migrate: Annotated[
        Switch, "1: a start brings the database's tables up to date; 0: `migrate` does it."
    ] = True
    catalogue: Annotated[
        Literal["shipped", "empty"],
        Meta(description="shipped or empty: what a new SQLite file is filled with"),
        "empty: a new SQLite file has no instruments until you import some.",
    ] = "shipped"
    sqlite_path: Annotated[
        str,
        Meta(description="a file; empty: in the user's state folder"),
        "SQLite file that keeps the instruments and last prices without DATABASE_URL.",
    ] = ""
    price_write_interval: Annotated[
        Seconds, "Interval in which the server writes last prices and bars to the database."
    ] = Duration(5)
    bars_keep: Annotated[
        Seconds, "How long the database keeps bars, counted back from the newest one."
    ] = Duration(365 * 86_400)
    redis_url: Annotated[
        RedisUrl,
        Meta(description="redis://…?db=0, else a cache in the process"),
        "Redis that instances share: their cache, and in a cluster their prices.",
    ] = RedisUrl()
    cache_ttl: Annotated[Seconds, "How long the cache keeps a value."] = Duration(300)
    cache_symbols: Annotated[Count, "Symbols that the process keeps in memory."] = 20_000
    cache_warm: Annotated[
        NameList,
        Meta(description="symbols; empty: those watched last"),
        "Symbols that a start loads into the cache.",
    ] = NameList()
    bus_lease: Annotated[
        Seconds, "Time after which another instance replaces a leader that gives no sign of life."
    ] = Duration(3)
    bus_stale_after: Annotated[
        Seconds, "How long the leader may be silent before prices count as stale."
    ] = Duration(3)
    bus_outage: Annotated[
        Literal["stale", "local"],
        Meta(description="stale or local: without Redis"),
        "When Redis fails, stale: clients are told; local: each instance simulates prices alone.",
    ] = "stale"
    ws_max_connections: Annotated[Count, "Connections of a server or worker in all."] = 10_000
    ws_max_connections_per_user: Annotated[Count, "Connections of one user."] = 100
    ws_max_symbols: Annotated[Count, "Symbols of one connection."] = 500
    ws_command_rate: Annotated[
        int,
        Meta(ge=1, description="commands a second, 1 or more"),
        "Frames a second of one connection; twice that at once.",
    ] = 50
    ws_handshake_rate: Annotated[
        Count, "Handshakes a second of all clients; ten seconds' worth at once."
    ] = 3000
    user_command_rate: Annotated[
        int,
        Meta(ge=1, description="commands a second of a user in all, 1 or more"),
        "Commands a second of one user on all connections; five seconds' worth at once.",
    ] = 4000
    user_lookup_rate: Annotated[
        int,
        Meta(ge=1, description="symbols a second looked up for a user, 1 or more"),
        "Symbols a second that one user may make the server look up; four seconds' worth at once.",
    ] = 5000
    address_failure_rate: Annotated[
        int,
        Meta(ge=1, description="failed handshakes and requests a second, 1 or more"),
        "Failures a second of one client address; ten seconds' worth at once.",
    ] = 100
    address_request_rate: Annotated[
        int,
        Meta(ge=1, description="HTTP requests a second without a token, 1 or more"),
        "Requests a second of one client address without a token; ten seconds' worth at once.",
    ] = 100
    http_max_connections: Annotated[Count, "Connections of the HTTP port."] = 200
    ws_ping_interval: Annotated[
        Seconds, "Heartbeat: two pings without an answer end a connection."
    ] = Duration(20)
    ws_idle_timeout: Annotated[
        Seconds, "How long a connection may go without a command or a price."
    ] = Duration(30 * 60)
    ws_stall_timeout: Annotated[
        Seconds, "How long a client may take no bytes before that counts as a stall."
    ] = Duration(2)
    ws_circuit_breaker_threshold: Annotated[
        Count, "Stalls in a row that open a connection's circuit breaker."
    ] = 5
    ws_circuit_breaker_recovery: Annotated[
        Seconds, "How long an open circuit breaker waits before it tries the client once more."
    ] = Duration(30)
    drain_delay: Annotated[
        DelayText, "How long a stopping server still accepts clients after /readyz turned red."
    ] = Delay(2)
    workers_min: Annotated[Count, "Fewest workers of `--workers auto`."] = 1
    workers_max: Annotated[
        int,
        Meta(ge=0, description="a whole number; 0: one a core"),
        "Most workers of `--workers auto`.",
    ] = 0
    scale_up_connections: Annotated[
        Percent, "Percentage of the connections' places taken that starts a worker."
    ] = 80.0
    scale_up_cpu: Annotated[Percent, "Percentage of a core used that starts a worker."] = 80.0
    scale_up_latency: Annotated[Seconds, "Update delay (p95) that starts a worker."] = Duration(0.1)
    scale_down: Annotated[
        Percent, "Percentage of places and of a core below which a worker retires."
    ] = 30.0
    scale_after: Annotated[
        Seconds, "How long a load must last before a worker starts or retires."
    ] = Duration(10)
    scale_cooldown: Annotated[Seconds, "Pause after the number of workers changes."] = Duration(30)
    worker_timeout: Annotated[
        Seconds, "Silence after which the supervisor kills and replaces a worker."
    ] = Duration(30)
    worker_drain_rate: Annotated[
        int,
        Meta(ge=1, description="clients a second, 1 or more"),
        "Clients a second that a retiring worker sends to the others.",
    ] = 500
    ws_health_check_interval: Annotated[
        Seconds, "Interval in which the server looks at its health for /health."
    ] = Duration(30)
    log_format: Annotated[
        Literal["auto", "console", "json"],
        Meta(description="auto, console or json"),
        "Form of the log; auto: console on a terminal, else json.",
    ] = "auto"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="debug, info, warning or error"),
        "Lowest level that is logged.",
    ] = "info"

    def __repr__(self) -> str:
        # The values hold secrets.
        return "Settings(…)"


def allowed(annotated: Any) -> str:
    """Describe the values that a setting's type allows."""
    return str(annotated.__metadata__[0].description)
