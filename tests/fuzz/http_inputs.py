"""Inputs for an HTTP port: whole requests with known answers, and spoiled ones."""

from collections.abc import Sequence
from random import Random
from typing import Any, NamedTuple
from urllib.parse import quote

import jwt

from tests.faults.http2_attacks import ATTACKS, frame
from tests.faults.http_attacks import (
    BAD_CHUNKS,
    BAD_HEADS,
    BAD_LENGTHS,
    BAD_VERSIONS,
    CLIENT_FRAME,
    SMUGGLED,
    UPGRADES,
)
from tests.processes import SECRET

FAR = 4102444800
"""The year 2100 in Unix seconds: all runs have the same tokens, so that a seed reproduces a failure."""

LONGEST = 2000
"""Bytes of the largest attack that becomes an input; larger ones would take most of the time."""


class Piece(NamedTuple):
    """A part of a conversation.

    `expected` are the statuses of the one answer to a whole request of `method`; None allows
    everything documented. The connection goes on after it unless it is the `last`.
    """

    data: bytes
    expected: frozenset[int] | None = None
    method: str = "GET"
    last: bool = False


class Conversation(NamedTuple):
    """Pieces that are sent in parts which end at `cuts`, and how the client ends the conversation."""

    pieces: Sequence[Piece]
    data: bytes
    cuts: Sequence[int]
    ending: str

    @property
    def certain(self) -> Sequence[Piece]:
        """Return the whole requests before the first spoiled one or the last one."""
        certain = []
        for piece in self.pieces:
            if piece.expected is None:
                break
            certain.append(piece)
            if piece.last:
                break
        return certain


def _token(claims: dict[str, Any], key: str = SECRET, algorithm: str = "HS256") -> str:
    return jwt.encode({"sub": "fuzz", "exp": FAR} | claims, key, algorithm)


def _raw_token(payload: bytes) -> str:
    return jwt.api_jws.encode(payload, SECRET, "HS256")


GOOD = {role: f"Bearer {_token({'role': role})}" for role in ("user", "admin")}

BAD_TOKENS = [
    "Bearer", "Bearer ", "bearer x", "Bearer x.y.z", "Bearer a.b.c.d", "Basic dTpw", "x" * 3000,
    "Bearer " + "\xff" * 8, "Bearer " + "." * 500, "Bearer =.=.=", 'Digest username="x"', ",", "",
    *(
        f"Bearer {token}"
        for token in (
            _token({}, "another secret, 32 bytes or longer"), _token({}, "", "none"),
            _token({}, SECRET * 2, "HS512"), _token({"exp": 1}), _token({"nbf": FAR}),
            _raw_token(b"[]"), _raw_token(b"null"), _raw_token(b"\xff"), _raw_token(b"[" * 2000),
            _raw_token(b'{"sub":"a","exp":1e400}'), _raw_token(b'{"sub":"a","exp":NaN}'),
            _raw_token(b'{"sub":"a","exp":"x"}'), _raw_token(b'{"sub":1,"exp":4102444800}'),
            _raw_token(b'{"sub":"a","exp":[]}'), _raw_token(b'{"sub":"a","exp":null}'),
            _raw_token(b'{"sub":"a","exp":' + b"9" * 5000 + b"}"),
        )
    ),
]  # a table # fmt: skip

ODD_TOKENS = [
    f"Bearer {token}"
    for token in (
        _raw_token(b'{"sub":"\\ud800","exp":4102444800}'), _token({"sub": ""}),
        _token({"sub": "a" * 2000}), _token({"sub": "\x00\n"}), _token({"role": ["admin"]}),
        _token({"role": {"admin": 1}}), _token({"iat": FAR}), _token({"aud": "x"}),
        _raw_token(b'{"sub":"a","exp":4102444800,"iss":5}'), _token({"symbols": [None]}),
        _raw_token(b'{"sub":"a","exp":1e300}'),
        _raw_token(b'{"sub":"a","sub":"b","exp":4102444800.5}'),
    )
]  # a table # fmt: skip
"""Tokens with a good signature that no issuer would make: some are accepted, none may break
anything.
"""

SYMBOLS = [
    "AAPL", "aapl", "MSFT", "BRK.B", "SPY", "NOPE", "*", "", " ", "A/B", "^GSPC", "EURUSD=X", "\x00",
    "é", "ß", "\u0130", "\u202e", "\ufeff", "\U0001f600", "a" * 50, "a" * 51, "a" * 3000, "%", "%%",
    "'; DROP TABLE market_data; --", "..", "../..", "{symbol}", "\r\nX: y", "-1", "1e9", "\x85",
]  # a table # fmt: skip
RAW = [
    "%ff",
    "%00",
    "%ED%A0%80",
    "%C0%AF",
    "%",
    "%2",
    "%zz",
    "+",
    "&",
    ";",
    "=",
    "?",
    "%0d%0a",
    "a=b",
]
"""Texts for a query or a path, unescaped or wrongly escaped."""

LIMITS = [
    "1",
    "20",
    "100",
    "0",
    "-1",
    "101",
    "1e1",
    "1.0",
    "x",
    "",
    "9" * 30,
    "%D9%A3",
    "+5",
    "0x5",
]

_READING, _LOGIN = frozenset({200, 400, 503}), frozenset({401})
_ROUTES = ["/healthz", "/readyz", "/health", "/openapi.json", "/docs", "/metrics", "/nowhere", "/"]


def _plain(random: Random) -> tuple[str, str, dict[str, str], frozenset[int]]:
    target = random.choices(_ROUTES, (40, 10, 5, 3, 3, 1, 20, 10))[0]
    method = random.choice(("GET", "GET", "GET", "HEAD", "POST", "DELETE", "OPTIONS", "BREW"))
    good = 404 if target == "/nowhere" else 200
    if method not in ("GET", "HEAD"):
        good = 404 if good == 404 else 405
    query = random.choice(("", "", f"?{random.choice(RAW)}", "?worker=x"))
    statuses = {good, 404} if target == "/metrics" else {good}
    return method, target + query, {}, frozenset(statuses)


def _symbols(random: Random) -> str:
    if random.random() < 0.02:
        return ",".join(f"X{number}" for number in range(random.choice((500, 501, 3000))))
    names = [quote(random.choice(SYMBOLS), safe="") for _ in range(random.choice((1, 1, 2, 5, 20)))]
    if random.random() < 0.2:
        names.append(random.choice(RAW))
    return ",".join(names)


def _query(random: Random) -> str:
    choice = random.random()
    if choice < 0.05:
        return ""
    query = f"?symbols={_symbols(random)}"
    return query + (f"&symbols={_symbols(random)}" if choice > 0.9 else "")


def _api(random: Random) -> tuple[str, str, dict[str, str], frozenset[int]]:
    kind = random.randrange(6)
    method, statuses, role = "GET", _READING, "user"
    if kind < 2:
        target = random.choice(("/quotes", "/market-data")) + _query(random)
    elif kind == 2:
        term = quote(random.choice(SYMBOLS), safe="") + random.choice(("", *RAW))
        target = f"/instruments?query={term}&limit={random.choice(LIMITS)}"
    elif kind == 3:
        target = f"/instruments/{quote(random.choice(SYMBOLS), safe='/')}"
        target += random.choice(("", "", random.choice(RAW)))
    else:
        role = random.choice(("user", "admin", "admin"))
        method, name = (("DELETE", "invalidate"), ("POST", "warm"))[kind - 4]
        target = f"/admin/market-data/cache/{name}{_query(random)}"
        statuses = _READING if role == "admin" else frozenset({403})
    headers, statuses = _authorize(random, role, statuses)
    if kind == 3:  # before the token is looked at, if it holds an end of a line
        statuses |= {404}
    return method, target, headers, statuses


def _authorize(
    random: Random, role: str, statuses: frozenset[int]
) -> tuple[dict[str, str], frozenset[int]]:
    choice = random.random()
    if choice < 0.75:
        return {"Authorization": GOOD[role]}, statuses
    if choice < 0.8:
        return {}, _LOGIN
    if choice < 0.92:
        return {"Authorization": random.choice(BAD_TOKENS)}, _LOGIN
    return {"Authorization": random.choice(ODD_TOKENS)}, statuses | {401, 403}


EXTRA = [
    ("Accept", "*/*"), ("User-Agent", "fuzz/1.0 (\xe9)"), ("X-Empty", ""), ("X-Tab", "a\tb"),
    ("Connection", "keep-alive"), ("Cookie", "a=b; c=d"), ("Accept-Encoding", "gzip, br;q=0"),
    ("X-Long", "y" * 1000), ("!#$%&'*+-.^_`|~", "a name of all it may have"), ("If-None-Match", "x"),
    ("Range", "bytes=0-1"), ("X-Forwarded-For", "::1"), ("TE", "trailers"), ("Expect", "100-continue"),
    ("Keep-Alive", "timeout=5"), ("Content-Type", "application/json"), ("Via", "1.1 x"),
    ("Connection", "Authorization"), ("Proxy-Connection", "close"), ("Forwarded", "for=\"_x\""),
]  # a table # fmt: skip


def _chunked(random: Random, body: bytes) -> bytes:
    wire = []
    while body:
        size = random.randint(1, len(body))
        number = b"%0*X" % (random.choice((1, 1, 4)), size)
        wire += [number, random.choice((b"", b"", b";a=b", b";x")), b"\r\n", body[:size], b"\r\n"]
        body = body[size:]
    trailers = random.choice((b"", b"", b"X-Sum: 1\r\n"))
    return b"".join([*wire, b"0\r\n", trailers, b"\r\n"])


def make_whole(random: Random) -> Piece:
    """Return a well-formed request, which must have one answer."""
    method, target, headers, statuses = (_api if random.random() < 0.6 else _plain)(random)
    lines, last = [("Host", "localhost"), *headers.items()], False
    lines += random.choices(EXTRA, k=random.choice((0, 0, 1, 2, 5)))
    version = "HTTP/1.1"
    body = random.randbytes(random.choice((1, 20, 300))) if random.random() < 0.15 else b""
    choice = random.random()
    if choice < 0.03:
        lines.append(("Connection", "close"))
        last = True
    elif choice < 0.04 and not body:
        version, last = "HTTP/1.0", True
    elif choice < 0.1 and target.startswith("/"):
        target = f"http://localhost{target}"
    if body and random.random() < 0.5:
        lines.append(("Transfer-Encoding", "chunked"))
        body = _chunked(random, body)
    elif body or random.random() < 0.05:
        lines.append(("Content-Length", str(len(body))))
    if version == "HTTP/1.0":
        lines = [line for line in lines if line[0] not in ("Connection", "TE")]
    if random.random() < 0.3:
        random.shuffle(lines)
    head = "\r\n".join([f"{method} {target} {version}", *(f"{k}: {v}" for k, v in lines), "", ""])
    before = b"\r\n" if random.random() < 0.02 else b""
    return Piece(before + head.encode("latin-1") + body, statuses, method, last)


def _flip(random: Random, data: bytearray) -> None:
    data[random.randrange(len(data))] = random.randrange(256)


def _insert(random: Random, data: bytearray) -> None:
    at = random.randrange(len(data) + 1)
    data[at:at] = random.choice(
        (random.randbytes(random.randint(1, 8)), b"\r\n", b"\n", b"\0", b" ")
    )


def _delete(random: Random, data: bytearray) -> None:
    at = random.randrange(len(data))
    del data[at : at + random.choice((1, 2, 20))]


def _repeat(random: Random, data: bytearray) -> None:
    start = random.randrange(len(data))
    part = data[start : start + random.randint(1, 100)]
    data[start:start] = part * random.choice((1, 2, 20))


def _add_line(random: Random, data: bytearray) -> None:
    at = data.find(b"\r\n") + 2
    data[at:at] = random.choice(BAD_LINES) + random.choice((b"\r\n", b"\r\n", b"\n", b""))


_MUTATIONS = (_flip, _insert, _delete, _repeat, _add_line)

BAD_LINES = [
    b"Content-Length: 5", b"Content-Length: -1", b"Content-Length: 0, 0", b"Content-Length: 1e9",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip", b"Transfer-Encoding : chunked",
    b"Host: x", b"Host:", b" folded", b": no name", b"no colon", b"X: \x00", b"X: \x0b", b"\xff: x",
    b"Upgrade: h2c", b"Upgrade: websocket", b"Connection: Upgrade", b"HTTP2-Settings: A",
    b"Expect: x", b"Trailer: Host", b"Sec-WebSocket-Protocol: \xff", b"Sec-WebSocket-Key: x",
    b"X: y\rZ: w", b"Authorization: Bearer x", b"Connection: close", b"Range: bytes=9-1,-,5-",
    b"If-None-Match: " + b'"x",' * 300, b"Connection: " + b"close," * 300, b"A:b\r\n" * 200 + b"C: d",
]  # a table # fmt: skip


def _mutated(random: Random) -> bytes:
    while (piece := make_whole(random)).method == "HEAD":  # its answer would be read without a body
        pass
    data = bytearray(piece.data)
    for _ in range(random.choice((1, 1, 1, 2, 5))):
        random.choice(_MUTATIONS)(random, data)
    return bytes(data)


_KNOWN = [
    case.data
    for cases in (BAD_HEADS, BAD_VERSIONS, BAD_LENGTHS, UPGRADES, SMUGGLED)
    for case in cases
    if len(case.data) <= LONGEST
]
_HTTP2 = [data[:LONGEST] for data in ATTACKS.values()]


def _known(random: Random) -> bytes:
    return random.choice(_KNOWN)


def _bad_chunks(random: Random) -> bytes:
    target = random.choice(("/healthz", "/admin/market-data/cache/warm?symbols=AAPL"))
    head = f"POST {target} HTTP/1.1\r\nHost: a\r\nAuthorization: {GOOD['admin']}\r\n"
    before = _chunked(random, b"hello").removesuffix(b"0\r\n\r\n") if random.random() < 0.5 else b""
    wire = bytearray(before + random.choice(BAD_CHUNKS))
    if random.random() < 0.5:
        _flip(random, wire)
    return head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + bytes(wire)


def _http2(random: Random) -> bytes:
    data = bytearray(random.choice(_HTTP2))
    for _ in range(random.randrange(4)):
        data += frame(
            random.randrange(12),
            random.randrange(256),
            random.randrange(8),
            random.randbytes(random.choice((0, 4, 5, 8, 60))),
        )
    if random.random() < 0.3:
        _flip(random, data)
    return bytes(data)


def _garbage(random: Random) -> bytes:
    data = random.randbytes(random.choice((1, 5, 50, 500)))
    return data + random.choice((b"", b"\r\n\r\n", b"\n\n", b"\r\n"))


def _truncated(random: Random) -> bytes:
    data = _mutated(random)
    return data[: random.randrange(len(data))]


def _large(random: Random) -> bytes:
    filler = random.choice((b"y" * 140_000, b"X: y\r\n" * 3000, b"\xff" * 140_000))
    return b"GET /healthz HTTP/1.1\r\nHost: a\r\n" + random.choice((b"X: ", b"")) + filler


_SPOILERS = (_mutated, _known, _bad_chunks, _http2, _garbage, _truncated, _large)
_WEIGHTS = (500, 150, 100, 60, 60, 60, 2)


def make_spoiled(random: Random) -> Piece:
    """Return a request that is spoiled or is for another protocol, or bytes that are not a request."""
    data = random.choices(_SPOILERS, _WEIGHTS)[0](random)
    return Piece(data + (CLIENT_FRAME if random.random() < 0.02 else b""))


def make_conversation(random: Random) -> Conversation:
    """Return one connection's inputs: one to twelve, mostly whole, up to a spoiled one that others
    follow.
    """
    count = random.choice((1, 1, 2, 4, 8, 12))
    whole = random.choice((0, 0, 1, 2, count, count))
    pieces = [make_whole(random) for _ in range(min(whole, count))]
    while len(pieces) < count:
        piece = (
            make_spoiled(random) if random.random() < 0.6 or len(pieces) == whole else _tail(random)
        )
        pieces.append(piece)
    data = b"".join(piece.data for piece in pieces)
    ending = random.choices(("read", "half-close", "close", "reset"), (80, 10, 5, 5))[0]
    if ending != "read" and random.random() < 0.5:
        data = data[: random.randrange(len(data) + 1)]
    cuts = sorted(random.randrange(len(data) + 1) for _ in range(random.choice((0, 0, 0, 1, 2, 5))))
    return Conversation(pieces, data, cuts, ending)


def _tail(random: Random) -> Piece:
    """Return a whole request behind a spoiled one; the server may or may not answer it."""
    return Piece(b"" if (piece := make_whole(random)).method == "HEAD" else piece.data)
