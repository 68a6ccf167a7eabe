"""Takes over new keys and a new log level while the server runs.

It reads `.env` again, and the file of JWT_PUBLIC_KEY. Variables of the process's own environment take
precedence over `.env`, and a reload cannot change them.
"""

from collections.abc import Callable

import msgspec
import structlog
import trio

from server.config.environment import BadSetting
from server.config.settings import Settings
from server.gateway.auth import Authenticator, BadKey
from server.ops.logs import set_level

KEYS = ("jwt_secret", "jwt_public_key", "jwt_algorithms", "jwt_audience", "jwt_issuer")

RELOADED = (*KEYS, "log_level")
"""The settings that take effect without a restart."""

Load = Callable[[], tuple[Settings, Authenticator]]

log = structlog.get_logger()


class Reloading:
    """`settings` are in force; `authenticator` is the one that all parts of the server share.

    `load` reads both anew, in a thread. It may raise BadSetting and BadKey.
    """

    def __init__(self, settings: Settings, authenticator: Authenticator, load: Load) -> None:
        self._settings = settings
        self._authenticator = authenticator
        self._load = load
        self._wanted = trio.Event()

    def request(self) -> None:
        """Make `run` reload, or reload once more if it is reloading now."""
        self._wanted.set()

    async def run(self) -> None:
        """Reload at each request, until cancelled. If reading fails, change nothing."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            try:
                # In a thread: a file system that hangs must not hold prices up.
                loaded = await trio.to_thread.run_sync(self._load, abandon_on_cancel=True)
            except (BadSetting, BadKey) as error:
                log.error("nothing was reloaded, the old settings stay", problem=str(error))
            except Exception:
                log.exception("nothing was reloaded, the old settings stay")
            else:
                self._take_over(*loaded)

    def _take_over(self, settings: Settings, authenticator: Authenticator) -> None:
        changed = _changed(self._settings, settings)
        reloaded = [name for name in changed if name in RELOADED]
        if not self._authenticator.verifies_as(authenticator):
            # The same file has another key in it.
            if not set(reloaded) & set(KEYS):
                reloaded.append("jwt_public_key")
            self._authenticator.take_over(authenticator)
        set_level(settings.log_level)
        values = {name: getattr(settings, name) for name in RELOADED}
        self._settings = msgspec.structs.replace(self._settings, **values)
        if reloaded:
            log.info("reloaded", variables=_variables(reloaded))
        if rest := [name for name in changed if name not in RELOADED]:
            log.warning("a restart is needed for these settings", variables=_variables(rest))
        if not changed and not reloaded:
            log.info("nothing to reload")


def _changed(old: Settings, new: Settings) -> list[str]:
    fields = Settings.__struct_fields__
    return [name for name in fields if getattr(old, name) != getattr(new, name)]


def _variables(names: list[str]) -> list[str]:
    return [name.upper() for name in names]
