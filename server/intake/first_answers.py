"""Remembers the answers to batches with an idempotency key, so that a repetition gets the first one."""

from collections.abc import Hashable

from server.intake.answer import Answer

FIRST_ANSWERS = 10_000
"""Answers that are remembered."""

MOST_REJECTIONS = 100_000
"""Rejections in all of these answers, some 20 MB."""


class FirstAnswers:
    """The last answers by key. When there are too many, the oldest is forgotten."""

    def __init__(self) -> None:
        self._answers: dict[Hashable, Answer] = {}
        self._rejections = 0

    def get(self, key: Hashable) -> Answer | None:
        """Return the first answer, None if there was none or it is forgotten."""
        return self._answers.get(key)

    def add(self, key: Hashable, answer: Answer) -> None:
        """Remember the answer to a key that has none."""
        self._answers[key] = answer
        self._rejections += len(answer.rejected)
        while len(self._answers) > FIRST_ANSWERS or self._rejections > MOST_REJECTIONS:
            oldest = self._answers.pop(next(iter(self._answers)))
            self._rejections -= len(oldest.rejected)
