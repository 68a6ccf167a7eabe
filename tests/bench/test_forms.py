"""The generator's clients read every form alike: they count each change once, and prove its version."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.forms import FORMS, BadContent, Compact, Form, MessagePack
from bench.generator import Client, Generator
from bench.limit import frame
from bench.message import updates

EACH = pytest.mark.parametrize(
    "form", [make(fields) for make in FORMS.values() for fields in ("", "volume")]
)

EMPTY_PING = b"\x89\x00"


class Reads:
    """A socket that gives the bytes of a stream in parts, and keeps what is sent."""

    def __init__(self, parts: list[bytes]) -> None:
        self._parts = parts
        self.sent: list[bytes] = []

    def recv_into(self, view: memoryview) -> int:
        """Give the next part."""
        part = self._parts.pop(0)
        view[: len(part)] = part
        return len(part)

    def send(self, data: bytes) -> None:
        """Keep a frame."""
        self.sent.append(data)


@EACH
@given(data=st.data())
def test_changes_are_counted_wherever_the_stream_is_cut(form: Form, data):
    """A client that only counts sees every change once, in parts of any size, and answers a ping."""
    update = updates(form)
    versions = data.draw(st.lists(st.integers(1, 2**53 - 1), max_size=8))
    frames = [frame(update(f"S{n:03}", version)) for n, version in enumerate(versions)]
    stream = b"".join(frames)
    cuts = sorted(
        {*data.draw(st.lists(st.integers(0, len(stream)), max_size=12))} | {0, len(stream)}
    )
    parts = [stream[a:b] for a, b in pairwise(cuts)]
    generator = Generator("ws://127.0.0.1:1/ws/quotes", form)
    client = Client(reads := Reads([*parts, EMPTY_PING]), b"", sampled=False)  # type: ignore[arg-type]  # a socket's two methods
    for _ in [*parts, EMPTY_PING]:
        generator._count(client)
    generator.close()
    assert client.frames == generator.frames == len(versions)
    assert reads.sent == [b"\x8a\x80\0\0\0\0"]


@EACH
def test_update_tells_its_version_and_the_one_before(form: Form):
    """Each form has the symbol, its version, and the version that it follows."""
    message = updates(form)("AAPL", 1040)
    payload = message.encode() if isinstance(message, str) else message
    (found,) = form.read(b"??" + payload, 2, 2 + len(payload))
    assert (found.symbol, found.since, found.version) == (b'"AAPL"', 1039, 1040)
    assert form.query.count("=") == (form.name != "json") + bool(form.fields)


@pytest.mark.parametrize("form", [Compact(), MessagePack()])
def test_row_that_lost_a_value_is_noticed(form: Compact):
    """A row has one value for each bit of its mask."""
    encode = msgspec.msgpack.encode if form.name == "msgpack" else msgspec.json.encode
    payload = encode(["u", 1_764_012_345_678_901, [["AAPL", 1040, 7, 175.92, 50000300]]])
    with pytest.raises(BadContent):
        list(form.read(payload, 0, len(payload)))
