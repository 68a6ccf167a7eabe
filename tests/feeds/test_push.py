"""The push feed between publishers and the topics, on memory channels."""

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress

import msgspec
import pytest
import structlog
import trio

from server.feeds.push import WAITING_BATCHES, Push
from server.gateway.auth import Identity
from server.intake.answer import Answer
from server.intake.batch import Batch, Busy, OnAnswer, Uncertain
from server.intake.held import HELD_A_SYMBOL
from server.intake.intake import Intake
from server.intake.kept import Values
from server.intake.market import Notice, Rules
from server.intake.objects import Line, read_batch
from server.ops.endpoint import Call
from server.ops.problems import ApiError
from server.ops.publishing import PriceDesk
from server.quotes.instrument import Instrument
from server.quotes.update import Update

AAPL = b'{"symbol":"AAPL","price":175.92,"size":1}'


class Exchange:
    """Knows the symbols in `listed`, and others once they are looked up. `told`: its announcements."""

    def __init__(self) -> None:
        self.listed = {"AAPL"}
        self.away = {"AWAY"}
        self.look_ups = 0
        self.told: list[Notice] = []
        self.waited: list[set[str]] = []

    def instrument(self, symbol: str) -> Instrument | None:
        if symbol not in self.listed:
            return None
        return Instrument(symbol=symbol, name=symbol, base_price=100.0)

    def may_list(self, symbol: str) -> bool:
        if symbol == "FAULT":
            raise OverflowError("judging failed")
        return False

    def values(self, symbol: str) -> Values:
        return Values(None, 0, None, None, traded=False)

    async def look_up(self, symbols: Sequence[str]) -> Sequence[str]:
        await trio.lowlevel.checkpoint()
        self.look_ups += 1
        if "LOST" in symbols:
            raise LookupError("looking up failed")
        self.listed |= {each for each in symbols if each.startswith("NEW")}
        return [each for each in symbols if each in self.away]

    async def list_new(self, instruments) -> None:
        pytest.fail("`may_list` allows no symbol")

    def announce(self, notice: Notice) -> None:
        self.told.append(notice)

    async def published(self, symbols: Iterable[str]) -> None:
        await trio.lowlevel.checkpoint()
        self.waited.append(set(symbols))


class Feed:
    """A push feed whose channel holds `room` updates."""

    def __init__(self, room: int = 1000, rules: Rules = Rules()) -> None:
        self.exchange = Exchange()
        self.push = Push(Intake(self.exchange, rules), self.exchange)
        self.send, self.receive = trio.open_memory_channel[Update](room)
        self.answers: list[Answer] = []
        self._more = trio.Event()

    async def offer(self, body: bytes) -> None:
        await self.push.offer(Batch([body], "sip", "", None), self._on_answer)

    def _on_answer(self, answer: Answer) -> None:
        self.answers.append(answer)
        self._more.set()

    async def wait_answers(self, number: int) -> None:
        """Wait until there are as many answers."""
        while len(self.answers) < number:
            self._more = trio.Event()
            await self._more.wait()

    async def route(self) -> None:
        """Take out all updates, as the broadcaster does."""
        async for _ in self.receive:
            pass


@asynccontextmanager
async def running(feed: Feed) -> AsyncIterator[Feed]:
    """Run a feed, and what takes its updates, within the context."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed.push.run, feed.send)  # noqa: ASYNC113 (the next line but one waits)
        nursery.start_soon(feed.route)
        await trio.testing.wait_all_tasks_blocked()
        yield feed
        nursery.cancel_scope.cancel()


async def test_batches_are_answered_in_their_order(autojump_clock) -> None:
    """Each when its own updates are published, and symbols are looked up once."""
    async with running(Feed()) as feed:
        await feed.offer(AAPL)
        await feed.offer(b'[{"symbol":"NEW1","price":5},{"symbol":"AWAY","price":5}]\n')
        await feed.offer(b'{"symbol":"NONE","price":5}')
        await feed.wait_answers(3)
        assert [each.accepted for each in feed.answers] == [1, 1, 0]
        codes = [[rejected.code for rejected in each.rejected] for each in feed.answers]
        assert codes == [[], ["store_unavailable"], ["unknown_symbol"]]
        assert set().union(*feed.exchange.waited) == {"AAPL", "NEW1"}


async def test_frames_of_one_object_are_judged_together() -> None:
    """They reach the topics in one pass of the loop, so they share a round. A mistake has its frame."""
    feed = Feed()
    # trio may run either task first, so the first look is before the batch.
    seen = [feed.receive.statistics().current_buffer_used]
    bodies = [AAPL] * 20 + [b"5"] + [AAPL] * 20
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed.push.run, feed.send)
        await trio.testing.wait_all_tasks_blocked()
        await feed.push.offer(Batch(bodies, "sip", "", None, 101), feed._on_answer)
        with trio.fail_after(5):
            while seen[-1] < 40:
                await trio.lowlevel.checkpoint()
                seen.append(feed.receive.statistics().current_buffer_used)
        nursery.start_soon(feed.route)
        await feed.wait_answers(1)
        nursery.cancel_scope.cancel()
    assert {*seen} == {0, 40}
    [rejection] = feed.answers[0].rejected
    assert (rejection.frame, rejection.line) == (121, 1)


async def test_fault_of_the_server_costs_one_object_and_not_the_feed(autojump_clock) -> None:
    """It is answered by line, the log has its traceback, and the objects around it count."""
    with structlog.testing.capture_logs() as lines:
        async with running(Feed()) as feed:
            await feed.offer(AAPL + b'\n{"symbol":"FAULT","price":5}\n' + AAPL)
            await feed.offer(b'{"symbol":"LOST","price":5}')
            await feed.offer(AAPL)
            await feed.wait_answers(3)
    assert [each.accepted for each in feed.answers] == [2, 0, 1]
    rejected = [(each.line, each.code) for answer in feed.answers for each in answer.rejected]
    assert rejected == [(2, "internal_error"), (1, "internal_error")]
    faults = [line["event"] for line in lines if line.get("exc_info")]
    assert faults == ["published object failed", "published objects failed"]


async def test_store_without_an_answer_is_asked_once_in_a_batch(autojump_clock) -> None:
    """The feed does not wait for it again and again. Symbols in memory count."""
    async with running(Feed()) as feed:
        await feed.offer((b'{"symbol":"AWAY","price":5}\n' + AAPL + b"\n") * 300)
        await feed.wait_answers(1)
    assert feed.answers[0].accepted == 300
    assert {each.code for each in feed.answers[0].rejected} == {"store_unavailable"}
    assert feed.exchange.look_ups == 1


async def test_full_queue_takes_nothing(autojump_clock) -> None:
    """While the topics take no update, batches pile up to a bound, and further ones are refused."""
    async with trio.open_nursery() as nursery:
        feed = Feed(room=0)
        nursery.start_soon(feed.push.run, feed.send)
        await trio.testing.wait_all_tasks_blocked()
        taken = WAITING_BATCHES + 1
        for _ in range(taken):
            await feed.offer(AAPL)
            await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(Busy) as busy:
            await feed.offer(AAPL)
        assert busy.value.wait > 0
        nursery.start_soon(feed.route)
        await feed.wait_answers(taken)
        assert sum(each.accepted for each in feed.answers) == taken
        nursery.cancel_scope.cancel()


async def test_nothing_is_taken_while_the_feed_does_not_run() -> None:
    """An instance that does not lead says so."""
    with pytest.raises(Busy):
        await Feed().offer(AAPL)


async def test_status_waits_for_the_prices_before_it(autojump_clock) -> None:
    """It is announced when these are published."""
    async with trio.open_nursery() as nursery:
        feed = Feed(room=0)
        nursery.start_soon(feed.push.run, feed.send)
        await trio.testing.wait_all_tasks_blocked()
        await feed.offer(AAPL + b'\n{"kind":"status","symbol":"AAPL","status":"halted"}')
        await trio.testing.wait_all_tasks_blocked()
        assert not feed.exchange.told
        nursery.start_soon(feed.route)
        await feed.wait_answers(1)
        assert feed.exchange.told == [Notice("AAPL", "halted", "halted")]
        nursery.cancel_scope.cancel()


async def test_log_has_one_line_of_many_mistakes(autojump_clock) -> None:
    """It names the first, and counts the others in the next line, a second later."""
    with structlog.testing.capture_logs() as lines:
        async with running(Feed()) as feed:
            for pause in (0, 0, 0, 2):
                await trio.sleep(pause)
                await feed.offer(b"x\n" * 100)
                await trio.testing.wait_all_tasks_blocked()
    assert [(line["event"], line["rejected"]) for line in lines] == [
        ("published objects rejected", 100),
        ("published objects rejected", 300),
    ]
    assert lines[0]["code"] == "bad_json"


async def test_repeated_key_waits_for_the_first_batch(autojump_clock) -> None:
    """Also while that is on its way, and if its publisher has left. A refused batch has no answer."""
    feed = Feed(room=0)
    desk = PriceDesk(feed.push)
    values = {"Source": "", "Source-Epoch": "", "Idempotency-Key": "k"}
    call = Call(Identity("ann", "publisher", 0.0), None, values, {}, AAPL)
    with pytest.raises(ApiError):
        await desk.publish(call)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed.push.run, feed.send)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(5) as left:
            await desk.publish(call)
        assert left.cancelled_caught
        nursery.start_soon(feed.route)
        first, second = await desk.publish(call), await desk.publish(call)
        assert first is second
        assert first.accepted == 1
        assert feed.push.intake.sources.all["ann"].results["accepted"] == 1
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("problem", "status"),
    [(Busy("full", 1.0), 429), (Uncertain("Redis broke off", 1.0), 503), (OSError(), 503)],
)
async def test_batches_with_one_key_share_a_refusal(
    autojump_clock, problem: Exception, status: int
) -> None:
    """Only 429 promises that nothing counts, so no other end of the first batch may look like it."""
    begun, refused = trio.Event(), list[ApiError]()

    class Desk:
        async def offer(self, batch: Batch, on_answer: OnAnswer) -> None:
            begun.set()
            await trio.sleep(1)
            raise problem

        async def put(self, batch: Batch, on_answer: OnAnswer) -> None:
            raise AssertionError("a request offers its batch")

    desk = PriceDesk(Desk())
    values = {"Source": "", "Source-Epoch": "", "Idempotency-Key": "k"}
    call = Call(Identity("ann", "publisher", 0.0), None, values, {}, AAPL)

    async def publish() -> None:
        with suppress(OSError):
            try:
                await desk.publish(call)
            except ApiError as error:
                refused.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(publish)
        await begun.wait()
        nursery.start_soon(publish)
    assert {each.status_code for each in refused} == {status}
    assert all("Retry-After" in (each.headers or {}) for each in refused)


async def test_held_trades_are_never_lost_in_silence(autojump_clock) -> None:
    """The log tells of those that found no room, and of those that are left at the end."""
    with structlog.testing.capture_logs() as lines:
        async with running(Feed(rules=Rules(band=0.01))) as feed:
            prices = [100 * 2**n for n in range(20)] + [90 / 1.5**n for n in range(1, 10)]
            prices += [111 * 2**n for n in range(20)] + [131 * 2**n for n in range(20)]
            body = [{"symbol": "AAPL", "price": price} for price in prices]
            await feed.offer(msgspec.json.encode(body))
            await feed.wait_answers(1)
    held = feed.answers[0].held
    assert held == len(prices) - 1
    assert [(line["event"], line["trades"]) for line in lines] == [
        ("held trades dropped for want of room", held - HELD_A_SYMBOL),
        ("held trades are forgotten", HELD_A_SYMBOL),
    ]


async def test_fault_in_reading_costs_one_body_and_not_the_feed(
    autojump_clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its publisher is told by line and frame. The objects before it and the other bodies count."""

    def read(body: bytes, frame: int) -> Iterator[Line]:
        lines = read_batch(body, frame)
        yield next(lines)
        if b"FAULT" in body:
            raise MemoryError("reading failed")
        yield from lines

    monkeypatch.setattr("server.feeds.judge.read_batch", read)
    async with running(Feed()) as feed:
        bodies = [AAPL, AAPL + b"\nFAULT\n" + AAPL, AAPL]
        await feed.push.put(Batch(bodies, "sip", "", None, 1), feed._on_answer)
        await feed.offer(AAPL)
        await feed.wait_answers(2)
    first, second = feed.answers
    assert (first.accepted, second.accepted) == (3, 1)
    (fault,) = first.rejected
    assert (fault.code, fault.line, fault.frame) == ("internal_error", 2, 2)


async def test_publisher_that_cannot_take_its_answer_does_not_end_the_feed(autojump_clock) -> None:
    """Nor does a status that cannot be told. The batches behind them are answered."""

    def fail(answer: Answer) -> None:
        raise LookupError("answering failed")

    def announce(notice: Notice) -> None:
        raise LookupError("announcing failed")

    async with trio.open_nursery() as nursery:
        feed = Feed()
        feed.push._judge._announce = announce
        nursery.start_soon(feed.push.run, feed.send)  # noqa: ASYNC113 (the next line but one waits)
        nursery.start_soon(feed.route)
        await trio.testing.wait_all_tasks_blocked()
        await feed.push.put(Batch([AAPL], "sip", "", None), fail)
        await feed.offer(b'{"kind":"status","symbol":"AAPL","status":"halted"}\n' + AAPL)
        await feed.wait_answers(1)
        nursery.cancel_scope.cancel()
    assert feed.answers[0].accepted == 2
