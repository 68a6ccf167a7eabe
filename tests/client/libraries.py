"""Runs a story on trio and on asyncio."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import trio

PATIENCE = 40.0
"""Seconds for a story on a busy machine."""

Story = Callable[[], Awaitable[None]]


def on_trio(story: Story, patience: float = PATIENCE) -> None:
    async def limited() -> None:
        with trio.fail_after(patience):
            await story()

    trio.run(limited)


def on_asyncio(story: Story, patience: float = PATIENCE) -> None:
    async def limited() -> None:
        async with asyncio.timeout(patience):
            await story()

    asyncio.run(limited())


EACH = pytest.mark.parametrize("run", [on_trio, on_asyncio])
