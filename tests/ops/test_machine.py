"""The questions of operators to all workers, and the requests that may wait."""

from typing import Any

import msgspec
import pytest
import structlog
import trio

from server.app.reporting import page_or_nothing
from server.ops.clients import ClientView, Rank, Ranks
from server.ops.endpoint import Call
from server.ops.machine import AskRanks, AskState, AskViews, Closed, Machine, Views
from server.ops.operators import MAX_CLIENTS, MAX_SKIPPED, Operators
from server.ops.problems import RATE_LIMITED, ApiError
from server.ops.reference import MAX_WAITING, Reference
from server.workers.control import MAX_LINE, WorkersAnswers

WORKERS = 32

HOUR_US = 3_600_000_000


def view_of(id: str) -> ClientView:
    """Return a client with the longest user and symbols."""
    return ClientView(
        id=id,
        worker=1,
        user="ü" * 255,
        role="r" * 255,
        address="2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
        age=100_000.0,
        symbols=500,
        everything=False,
        first_symbols=["S" * 50] * 10,
        bars=500,
        owed=500,
        unread=10**6,
        state="blocked",
        blocked_for=100_000.0,
        breaker="half_open",
        round_trip=0.123456,
        interval=1.0,
        format="msgpack",
        fields=["previous_close"] * 18,
        bytes_received=10**12,
    )


class Crowd:
    """Workers with thousands of clients each. It notes how long a line their answers make."""

    def __init__(self) -> None:
        self.longest = 0

    async def ask(self, text: str) -> dict[int, str | None]:
        await trio.lowlevel.checkpoint()
        question = msgspec.json.decode(text, type=AskRanks | AskViews)
        answers: dict[int, str | None] = {
            number: msgspec.json.encode(self._answer(number, question)).decode()
            for number in range(WORKERS)
        }
        line = msgspec.json.encode(WorkersAnswers(10**6, answers))
        self.longest = max(self.longest, len(line))
        return answers

    def _answer(self, number: int, question: AskRanks | AskViews) -> Ranks | Views:
        if isinstance(question, AskViews):
            here = [each for each in question.ids if each.startswith(f"{number}-")]
            return Views([view_of(each) for each in here])
        ranks = [
            Rank(True, 1000.0 - place, 500, -HOUR_US - number, f"{number}-{HOUR_US + place}")
            for place in range(question.count)
        ]
        return Ranks(ranks, 5000)


async def test_answers_of_many_workers_fit_their_channel():
    """The last page of a large machine names the clients that are next, and no line is too long: that
    would end the worker.
    """
    crowd: Any = Crowd()
    nothing: Any = None
    operators = Operators(Machine(nothing, nothing, nothing, crowd.ask), takes_prices=False)
    values = {"query": "", "page_token": MAX_SKIPPED, "limit": MAX_CLIENTS}
    page = await operators.clients(Call(None, None, values, {}))
    assert page.matching == WORKERS * 5000
    places = [divmod(place, WORKERS) for place in range(MAX_SKIPPED, MAX_SKIPPED + MAX_CLIENTS)]
    assert [each.id for each in page.clients] == [f"{n}-{HOUR_US + place}" for place, n in places]
    assert {each.blocked_for for each in page.clients} == {100_000.0}
    assert crowd.longest < MAX_LINE / 2


async def test_client_that_left_between_two_questions_is_left_out():
    """The page is then one client shorter."""

    async def ask(text: str) -> dict[int, str | None]:
        await trio.lowlevel.checkpoint()
        question = msgspec.json.decode(text, type=AskRanks | AskViews)
        if isinstance(question, AskRanks):
            ranks = [Rank(False, 0.0, owed, -1, f"1-{owed}") for owed in (3, 2, 1)]
            return {1: msgspec.json.encode(Ranks(ranks, 3)).decode(), 2: None}
        return {1: msgspec.json.encode(Views([view_of("1-3"), view_of("1-1")])).decode(), 2: None}

    nothing: Any = None
    operators = Operators(Machine(nothing, nothing, nothing, ask), takes_prices=False)
    values = {"query": "", "page_token": 0, "limit": 10}
    page = await operators.clients(Call(None, None, values, {}))
    assert [each.id for each in page.clients] == ["1-3", "1-1"]
    assert (page.matching, page.silent) == (3, [2])


@pytest.mark.parametrize(
    ("id", "status"), [("2-17", 503), ("1-17", 404), ("9-17", 404), ("x", 404)]
)
async def test_client_of_a_silent_worker_is_not_called_gone(id, status):
    """It may still be there. A client of a worker that answers, or that left, is gone."""

    async def ask(_: str) -> dict[int, str | None]:
        await trio.lowlevel.checkpoint()
        return {1: msgspec.json.encode(Closed(None)).decode(), 2: None}

    nothing: Any = None
    operators = Operators(Machine(nothing, nothing, nothing, ask), takes_prices=False)
    with pytest.raises(ApiError) as refused:
        await operators.disconnect(Call(None, None, {"id": id}, {}))
    assert refused.value.status_code == status


@pytest.mark.parametrize(
    "answer", ["{", '{"client":1}', '{"x":' + "[" * 20_000 + "]" * 20_000 + "}"]
)
async def test_answer_that_is_not_understood_is_none(answer):
    """The worker that gave it may be of another version; the operator can try again."""

    async def ask(_: str) -> dict[int, str | None]:
        await trio.lowlevel.checkpoint()
        return {2: answer}

    nothing: Any = None
    operators = Operators(Machine(nothing, nothing, nothing, ask), takes_prices=False)
    with pytest.raises(ApiError) as refused:
        await operators.disconnect(Call(None, None, {"id": "2-17"}, {}))
    assert refused.value.status_code == 503


class BrokenRecorder:
    def samples(self) -> dict[str, Any]:
        raise RuntimeError("a metric cannot be read")


@pytest.mark.parametrize("question", [b'{"type":"state","since":0}', b'{"type":"news"}', b"{"])
async def test_question_that_cannot_be_answered_does_not_end_the_worker(question):
    """The asking worker gets an empty answer, and the log has a line."""
    broken: Any = BrokenRecorder()
    nothing: Any = None
    with structlog.testing.capture_logs() as lines:
        assert await Machine(nothing, broken, nothing).answer(question.decode()) == ""
    assert len(lines) == 1
    assert msgspec.json.decode(msgspec.json.encode(AskState(0)))["type"] == "state"


def test_page_of_metrics_that_cannot_be_made_does_not_end_the_worker():
    """The supervisor gets an empty one for its own page, and the log has a line."""
    with structlog.testing.capture_logs() as lines:
        assert page_or_nothing(lambda: str(1 / 0)) == ""
    assert [line["event"] for line in lines] == ["the supervisor gets no metrics"]


async def test_alone_a_failure_is_an_error():
    """Without workers there is nobody else's answer to show."""
    broken: Any = BrokenRecorder()
    nothing: Any = None
    with pytest.raises(RuntimeError):
        await Machine(nothing, broken, nothing).states(0)


async def test_few_files_wait_for_an_import(autojump_clock):
    """Each holds megabytes. The others are told to come again, and the limit holds after that, too."""
    nothing: Any = None
    reference: Any = Reference(nothing, nothing, None)
    imported: list[float] = []

    async def slow(*_: object) -> None:
        await trio.sleep(2)
        imported.append(trio.current_time())

    reference._import = slow
    refused: list[tuple[float, ApiError]] = []

    async def send() -> None:
        try:
            await reference.import_instruments(Call(None, None, {}, {}))
        except ApiError as error:
            refused.append((trio.current_time(), error))

    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(MAX_WAITING + 3):
            nursery.start_soon(send)
    assert [at - started for at, _ in refused] == pytest.approx([0, 0, 3, 3])
    assert [each - started for each in imported] == pytest.approx([2, 4])
    for _, error in refused:
        assert (error.status_code, error.code) == (RATE_LIMITED.status, RATE_LIMITED.code)
        assert "Retry-After" in (error.headers or {})
    await send()
    assert len(imported) == 3
