"""The route that takes prices from outside: `POST /prices`."""

import zlib
from functools import partial
from typing import Annotated

import trio
from msgspec import Meta
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server.gateway.handshake import NO_PRICES
from server.intake.answer import Answer
from server.intake.batch import MAX_NAME_LENGTH, Batch, Busy, Desk, Uncertain
from server.intake.first_answers import FirstAnswers
from server.intake.objects import MAX_BATCH_BYTES, Published
from server.ops.endpoint import UNCOMPRESSED, Call, EarlyRoute, Endpoint, Parameter
from server.ops.problems import (
    BAD_REQUEST,
    NOT_PUBLISHED_YET,
    RATE_LIMITED,
    TOO_LARGE,
    ApiError,
    Problem,
)

PUBLISH_TIMEOUT = 20.0
"""Seconds for a batch to be published. A full queue takes less."""

MAX_MEMBERS = 100
"""Members of a gzip body. Each costs a copy of the rest."""

Refusal = tuple[Problem, str]

NOT_TAKEN: Refusal = RATE_LIMITED, "the first batch with this key was not taken"

MAY_COUNT: Refusal = NOT_PUBLISHED_YET, "the first batch with this key may count; send it again"

_GZIP = 16 + zlib.MAX_WBITS

Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME_LENGTH, pattern=r"^[\x20-\x7e]*$")]


class _Receipt:
    """Stands for the answer to a batch that is on its way."""

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.answer = Answer()
        self.refusal: Refusal | None = None

    def on_answer(self, answer: Answer) -> None:
        self.answer = answer
        self.answered.set()

    def refuse(self, refusal: Refusal) -> None:
        self.refusal = refusal
        self.answered.set()


class PriceDesk:
    """The handler of the route. `desk` takes the batches."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._first = FirstAnswers()
        self._on_their_way: dict[tuple[str, str], _Receipt] = {}

    async def publish(self, call: Call) -> Answer:
        """Return the answer to a batch, once it is published. Errors: ApiError."""
        assert call.user is not None, "the route has a role"
        body = plain_body(call.body, call.encoding)
        source = call.values["Source"] or call.user.user
        key = call.values["Idempotency-Key"]
        named = call.user.user, key
        batch = Batch([body], source, call.values["Source-Epoch"], call.user.symbols)
        if not key:
            return await self._answer(await self._offer(batch))
        batch = batch._replace(key=f"{call.user.user}\0{key}")
        if first := self._first.get(named):
            return first
        receipt = self._on_their_way.get(named)
        if receipt is None:
            receipt = await self._offer(batch, named)
        return await self._answer(receipt)

    async def _offer(self, batch: Batch, named: tuple[str, str] | None = None) -> _Receipt:
        receipt = _Receipt()
        on_answer = partial(self._remember, named, receipt) if named else receipt.on_answer
        if named:
            self._on_their_way[named] = receipt
        try:
            await self._desk.offer(batch, on_answer)
        except Busy as busy:
            self._refuse(named, receipt, NOT_TAKEN)
            raise ApiError(RATE_LIMITED, str(busy), busy.wait) from None
        except Uncertain as uncertain:
            self._refuse(named, receipt, MAY_COUNT)
            raise ApiError(NOT_PUBLISHED_YET, str(uncertain), uncertain.wait) from None
        except BaseException:
            # The publisher may have left while the batch was taken.
            self._refuse(named, receipt, MAY_COUNT)
            raise
        return receipt

    def _refuse(self, named: tuple[str, str] | None, receipt: _Receipt, refusal: Refusal) -> None:
        """Let requests with the same key, which wait for this one, share its refusal."""
        if named:
            self._on_their_way.pop(named, None)
            receipt.refuse(refusal)

    def _remember(self, named: tuple[str, str], receipt: _Receipt, answer: Answer) -> None:
        """Keep the answer, even if the publisher has left."""
        self._on_their_way.pop(named, None)
        self._first.add(named, answer)
        receipt.on_answer(answer)

    async def _answer(self, receipt: _Receipt) -> Answer:
        with trio.move_on_after(PUBLISH_TIMEOUT):
            await receipt.answered.wait()
            if receipt.refusal:
                raise ApiError(*receipt.refusal, 1.0)
            return receipt.answer
        raise ApiError(NOT_PUBLISHED_YET, "the batch is taken, but is not published yet")


def plain_body(body: bytes, encoding: str, most: int = MAX_BATCH_BYTES) -> bytes:
    """Return a body of at most `most` bytes without its compression. Errors: ApiError."""
    if encoding in UNCOMPRESSED:
        return body
    plain = bytearray()
    try:
        # A gzip file may have several members (RFC 1952 §2.2).
        for _ in range(MAX_MEMBERS):
            if not body:
                return bytes(plain)
            member = zlib.decompressobj(_GZIP)
            plain += member.decompress(body, most + 1 - len(plain))
            if len(plain) > most:
                raise ApiError(TOO_LARGE, f"the body holds more than {most} bytes")
            if not member.eof:
                raise ApiError(BAD_REQUEST, "the gzip body breaks off")
            body = member.unused_data
    except zlib.error:
        raise ApiError(BAD_REQUEST, "the body is not gzip") from None
    raise ApiError(BAD_REQUEST, f"the gzip body has {MAX_MEMBERS} members or more")


def no_prices_route() -> Route:
    """Return the route that tells a publisher why this server takes no prices."""

    async def refuse(_: Request) -> Response:
        raise HTTPException(404, NO_PRICES)

    return EarlyRoute("/prices", refuse, methods=["GET", "POST"])


def price_endpoints(desk: Desk | None) -> list[Endpoint]:
    """Return the route for publishers; none without a `desk`."""
    if desk is None:
        return []
    named = partial(Parameter, type=Name, place="header", default="")
    return [
        Endpoint(
            path="/prices",
            method="POST",
            handle=PriceDesk(desk).publish,
            result=Answer,
            takes=Published,
            role="publisher",
            summary="Publish prices: an array, or one object a line",
            parameters=[
                named(
                    "Source", text="Whose `seq` it is; by default the token's user", example="sip"
                ),
                named("Source-Epoch", text="Another one after `seq` began anew", example="2"),
                named(
                    "Idempotency-Key", text="A repeated key gets the first answer", example="b-17"
                ),
            ],
            problems=[NOT_PUBLISHED_YET],
        )
    ]
