"""A process of Node that follows a real server with `quotes.js`."""

import json
import queue
import subprocess
import threading
from collections.abc import Callable, Sequence
from typing import Any, Self

from tests.browser_client.node import command
from tests.processes import START_TIMEOUT, ServerProcess, eventually, make_token

SPEED = 10
"""By how much the client's timers are faster, so that a test need not wait for a heartbeat."""


class Follower:
    """A client of `symbols`, which starts on entering. `events` has what it told, in order."""

    def __init__(
        self, url: str, symbols: Sequence[str], tokens: Sequence[str] = (), **options: Any
    ) -> None:
        self.symbols = symbols
        self.events: list[dict[str, Any]] = []
        self._options = {
            "url": url,
            "symbols": symbols,
            "tokens": [*tokens] or [make_token()],
            "speed": SPEED,
            **options,
        }
        self._results: queue.Queue[dict[str, Any]] = queue.Queue()
        self._calls = 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            command("follow.mjs", json.dumps(self._options)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def call(self, method: str, *arguments: Any) -> Any:
        """Return the result of a call of the client's, as `{"refused": …}` if it was refused."""
        self._calls += 1
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([self._calls, method, *arguments]) + "\n")
        self._process.stdin.flush()
        answer = self._results.get(timeout=START_TIMEOUT)
        assert answer["number"] == self._calls
        return answer.get("result", answer)

    def look(self) -> dict[str, Any]:
        """Return what a page can see."""
        seen: dict[str, Any] = self.call("look")
        return seen

    def details(self, event: str) -> list[dict[str, Any]]:
        """Return the events of one kind so far."""
        return [each["detail"] for each in [*self.events] if each["event"] == event]

    def states(self) -> list[tuple[str, str | None]]:
        """Return each state so far, with the code of its reason."""
        return [
            (each["state"], (each["reason"] or {}).get("code")) for each in self.details("state")
        ]

    def wait_for(self, check: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until a look satisfies `check`, and return it."""
        seen: dict[str, Any] = {}

        def satisfied() -> bool:
            seen.update(self.look())
            return check(seen)

        eventually(satisfied, START_TIMEOUT)
        return seen

    def wait_for_state(self, state: str, code: str | None = None, since: int = 0) -> int:
        """Wait for a state behind the first `since` ones. Return the number of states up to it."""
        eventually(lambda: (state, code) in self.states()[since:], START_TIMEOUT)
        return self.states().index((state, code), since) + 1

    def wait_until_equal(self, server: ServerProcess) -> None:
        """Wait until the client is live, misses nothing, and has each quote as the server's `/quotes`
        has it, with the same version.
        """

        fields = self._options.get("fields")

        def equal() -> bool:
            _, answer = server.ask(f"/quotes?symbols={','.join(self.symbols)}")
            quotes = {
                each["quote"]["symbol"]: {
                    name: each["quote"][name] for name in fields or each["quote"]
                }
                for each in answer
            }
            versions = {each["quote"]["symbol"]: each["version"] for each in answer}
            seen = self.look()
            proven = seen["state"] == "live" and not seen["missed"] and not seen["behind"]
            return proven and (seen["quotes"], seen["versions"]) == (quotes, versions)

        eventually(equal, START_TIMEOUT)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = json.loads(line)
            if "event" in message:
                self.events.append(message)
            else:
                self._results.put(message)
