"""The server's answers to the commands that an application waits for."""

from collections.abc import Iterable, Sequence
from itertools import count

from quotestream.core import in_parts
from quotestream.decoder import Message
from quotestream.driver import Event
from quotestream.errors import CommandRefused


class Answer:
    """The server's answer to one command. It has come as a whole once `event` is set.

    A ping follows each command, as the server answers in order. `ping` is the ping's id. It differs
    from the command's id, since a server may refuse either of the two for coming too fast.
    """

    def __init__(self, id: int, event: Event, symbols: Sequence[str]) -> None:
        self.id = id
        self.ping = f"ping {id}"
        self.event = event
        self.has_come = False
        self._open = dict.fromkeys(symbols)
        """The command's symbols that the server has neither accepted nor refused, in their order."""
        self._parts = in_parts(symbols)
        self._begun = 0
        """The number of parts up to the last one that has an answer about any of its symbols."""
        self._refusals: list[CommandRefused] = []

    def accept(self, symbols: Iterable[str]) -> None:
        """Note that the server carried the command out on `symbols`."""
        answered = {*symbols}
        for symbol in answered:
            self._open.pop(symbol, None)
        for number in range(self._begun, len(self._parts)):
            if not answered.isdisjoint(self._parts[number]):
                self._begun = number + 1

    def refuse(self, refusal: CommandRefused) -> None:
        """Note a refusal. One that names no symbols is about a whole message of the command.

        The server answers in order: that message is the first without any answer. If all have one, it
        is the first with symbols that wait for theirs.
        """
        parts = self._parts[self._begun :] or self._parts
        waiting = ([each for each in part if each in self._open] for part in parts)
        refused = next(filter(None, waiting), [])
        reasons = refusal.reasons or dict.fromkeys(refused, refusal.message)
        self.accept(reasons)
        self._refusals.append(CommandRefused(refusal.code, refusal.message, reasons))

    def check(self) -> None:
        """Raise what the server refused, as one error. Errors: CommandRefused."""
        if self._refusals:
            first, reasons = self._refusals[0], dict[str, str]()
            for each in self._refusals:
                reasons |= each.reasons
            raise CommandRefused(first.code, first.message, reasons)


class Answers:
    """The commands under way: one for each task of the application that waits."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._by_id: dict[int | str, Answer] = {}

    def begin(self, event: Event, symbols: Sequence[str]) -> Answer:
        """Return the place for the answer to a new command about `symbols`."""
        answer = Answer(next(self._numbers), event, symbols)
        self._by_id[answer.id] = self._by_id[answer.ping] = answer
        return answer

    def end(self, answer: Answer) -> None:
        """Forget a command."""
        del self._by_id[answer.id], self._by_id[answer.ping]

    def take(self, message: Message, refusal: CommandRefused | None = None) -> bool:
        """Take a `pong`, an `ack` or an `error`. Return whether a command waits for it."""
        about = message.get("id")
        answer = self._by_id.get(about) if isinstance(about, int | str) else None
        if answer is None:
            return False
        if about == answer.ping:
            # A refused ping, too, comes behind the answers to its command.
            answer.has_come = True
            answer.event.set()
        elif refusal is None:
            answer.accept(message.get("symbols", ()))
        else:
            answer.refuse(refusal)
        return True

    def give_up(self) -> None:
        """Let all tasks go on, as no answer will come."""
        for answer in self._by_id.values():
            answer.event.set()
