"""The operators' questions to all workers of a machine, and each worker's answers.

Each worker answers for itself. The worker that an operator's request reaches asks all of them over the
supervisor, which only passes texts on.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal, TypeVar

import msgspec
import structlog

from server.ops.audit import audit
from server.ops.clients import Clients, ClientView, Ranks
from server.ops.health import HealthMonitor
from server.ops.pages import HealthReport
from server.ops.problems import HOST_UNAVAILABLE, ApiError
from server.ops.recorder import Recorder, Recording, Samples

T = TypeVar("T")

Action = Literal["drain", "disconnect"]

AskWorkers = Callable[[str], Awaitable[Mapping[int, str | None]]]
"""Asks all workers. It returns their answers by their numbers, None for a worker without an answer."""

log = structlog.get_logger()


class AskState(msgspec.Struct, frozen=True, tag="state"):
    """How is the worker doing, with the points of the last hour after `since`?"""

    since: int


class AskRanks(msgspec.Struct, frozen=True, tag="ranks"):
    """Which `count` clients that match `query` are most behind?"""

    query: str
    count: int


class AskViews(msgspec.Struct, frozen=True, tag="views"):
    """How are the clients with these ids doing?"""

    ids: Sequence[str]


class AskClose(msgspec.Struct, frozen=True, tag="close"):
    """Please send a client away. `by` and `address` are the operator's."""

    id: str
    action: Action
    by: str | None
    address: str


class State(msgspec.Struct, frozen=True):
    """The answer to AskState. `samples` has the metrics by the names that `/metrics` shows."""

    samples: dict[str, float]
    health: HealthReport
    recording: Recording


class Views(msgspec.Struct, frozen=True):
    """The answer to AskViews: those of the clients that are here."""

    clients: list[ClientView]


class Closed(msgspec.Struct, frozen=True):
    """The answer to AskClose: the client, None if it is not here."""

    client: ClientView | None


_questions = msgspec.json.Decoder(AskState | AskRanks | AskViews | AskClose)
_encode = msgspec.json.Encoder().encode


class Machine:
    """Asks all workers of the machine, or this server if it has none.

    Arguments:
        ask_workers: reaches all of them, also this one; None without workers.
    """

    def __init__(
        self,
        clients: Clients,
        recorder: Recorder,
        health: HealthMonitor,
        ask_workers: AskWorkers | None = None,
    ) -> None:
        self._clients = clients
        self._recorder = recorder
        self._health = health
        self._ask_workers = ask_workers

    async def states(self, since: int) -> dict[int | None, State | None]:
        """Return how each worker is doing. Errors: ApiError."""
        told = await self._ask(AskState(since))
        return {number: _decoded(text, State) for number, text in told.items()}

    async def ranks(self, query: str, count: int) -> dict[int | None, Ranks | None]:
        """Return the clients of each worker that are most behind. Errors: ApiError."""
        told = await self._ask(AskRanks(query, count))
        return {number: _decoded(text, Ranks) for number, text in told.items()}

    async def views(self, ids: Sequence[str]) -> list[ClientView]:
        """Return clients in the order of their ids, without those that have left. Errors: ApiError."""
        told = await self._ask(AskViews(ids))
        answers = [_decoded(text, Views) for text in told.values()]
        found = {view.id: view for each in answers if each for view in each.clients}
        return [found[each] for each in ids if each in found]

    async def close(
        self, id: str, action: Action, by: str | None, address: str
    ) -> ClientView | None:
        """Send a client away and return it, None if no worker has it.

        Errors: ApiError, also if the worker that the id names gives no answer.
        """
        told = await self._ask(AskClose(id, action, by, address))
        closed = {str(number): _decoded(text, Closed) for number, text in told.items()}
        worker = id.partition("-")[0]
        if worker in closed and closed[worker] is None:
            message = f"worker {worker} gives no answer: the client may still be there, try again"
            raise ApiError(HOST_UNAVAILABLE, message)
        return next((each.client for each in closed.values() if each and each.client), None)

    async def answer(self, text: str) -> str:
        """Answer another worker's question. The answer is empty if the question is not understood (a
        roll may bring together workers of two versions), or if answering fails: that must not end the
        worker.
        """
        try:
            return await self._answer(text)
        except (ValueError, RecursionError) as error:
            log.warning("another worker's question was not understood", problem=str(error))
        except Exception as error:
            log.error("another worker's question was not answered", exc_info=error)
        return ""

    async def _answer(self, text: str) -> str:
        answer: State | Ranks | Views | Closed
        question = _questions.decode(text)
        match question:
            case AskState(since):
                answer = self._state(since)
            case AskRanks(query, count):
                answer = await self._clients.rank(query, count)
            case AskViews(ids):
                answer = Views(self._clients.views(ids))
            case AskClose():
                answer = self._close(question)
        return _encode(answer).decode()

    async def _ask(self, question: msgspec.Struct) -> Mapping[int | None, str | None]:
        text = _encode(question).decode()
        if self._ask_workers is None:
            return {None: await self._answer(text)}
        return dict((await self._ask_workers(text)).items())

    def _state(self, since: int) -> State:
        return State(
            samples=_flat(self._recorder.samples()),
            health=msgspec.convert(self._health.report(), HealthReport),
            recording=self._recorder.since(since),
        )

    def _close(self, question: AskClose) -> Closed:
        client = self._clients.close(question.id, question.action)
        if client:
            audit(
                question.action,
                question.by,
                question.address,
                client=client.id,
                client_user=client.user,
                client_address=client.address,
            )
        return Closed(client)


def _flat(samples: Samples) -> dict[str, float]:
    """Return metrics by the names that `/metrics` shows, without the buckets of histograms."""
    flat = {}
    for name, values in samples.items():
        if name.endswith("_bucket"):
            continue
        for labels, value in values.items():
            told = ",".join(f'{label}="{text}"' for label, text in labels)
            flat[f"{name}{{{told}}}" if told else name] = value
    return flat


def _decoded(text: str | None, kind: type[T]) -> T | None:
    """Return a worker's answer, None if there is none that this version understands."""
    if not text:
        return None
    try:
        return msgspec.json.decode(text, type=kind)
    except (ValueError, RecursionError) as error:
        log.warning("another worker's answer was not understood", problem=str(error))
        return None
