"""Runs `quotestream watch`: the live table in a terminal, or lines in a pipe."""

import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple

import trio
from rich.console import Console

from server.client.backfill import fill_in
from server.client.controls import Controls
from server.client.groups import first_of
from server.client.history import LONGEST_WAIT, HistoryClient
from server.client.keys import keys, unbuffered_keys
from server.client.lines import Busiest, Print, end_with_reader, print_json, print_message
from server.client.painting import Painter, redraw, tick
from server.client.stream import (
    Core,
    Credential,
    Listener,
    StreamRefused,
    follow,
    follow_core,
)
from server.client.subscription import EVERYTHING, Follow, Subscription
from server.client.table import Screen
from server.quotes.view import Form

SIGNALS = signal.SIGWINCH, signal.SIGTSTP, signal.SIGTERM, signal.SIGHUP


class Wishes(NamedTuple):
    """The choices of the user.

    Arguments:
        format, fields: those of `follow`.
        top: show this number of the busiest symbols; 0 for all.
        output: `table` in a terminal and lines elsewhere, or `json` for objects.
        http_url: the address of the server's HTTP port, for history; empty if it is not known.
    """

    symbols: Sequence[str]
    format: Form | None = None
    fields: Sequence[str] = ()
    top: int = 0
    output: Literal["table", "json"] = "table"
    http_url: str = ""


async def watch(url: str, token: str, wishes: Wishes) -> None:
    """Show the quotes until cancelled, or until the user quits. Errors: StreamRefused,
    BrokenPipeError.
    """

    async def follow_symbols(symbols: Sequence[str], listener: Listener) -> None:
        form, fields = wishes.format, wishes.fields
        if wants_lines:
            await follow(url, token, symbols, listener, format=form, fields=fields)
        else:
            core = Core(symbols, format=form, fields=fields)
            await follow_core(core, url, Credential(token), listener)

    symbols = wishes.symbols or (EVERYTHING,)
    console = Console()
    wants_lines = wishes.output == "json" or not sys.stdout.isatty() or console.is_dumb_terminal
    try:
        if wants_lines:
            await _show_lines(follow_symbols, symbols, wishes)
        else:
            history = None
            if wishes.http_url:
                # One task asks for all lines and charts: a longer wait for one would stop all.
                history = HistoryClient(wishes.http_url, token, patience=LONGEST_WAIT)
            await _show_table(follow_symbols, symbols, wishes, console, history)
    except BaseExceptionGroup as group:
        expected, others = group.split((StreamRefused, BrokenPipeError))
        if expected is None or others is not None:
            raise
        raise first_of(expected) from None


async def _show_lines(follow_symbols: Follow, symbols: Sequence[str], wishes: Wishes) -> None:
    show: Print = print_json
    if wishes.output != "json":
        show = partial(print_message, fields=wishes.fields)
    if wishes.top:
        show = Busiest(wishes.top, show, time.time)
    async with trio.open_nursery() as tasks:
        tasks.start_soon(end_with_reader)
        await follow_symbols(symbols, show)


async def _show_table(
    follow_symbols: Follow,
    symbols: Sequence[str],
    wishes: Wishes,
    console: Console,
    history: HistoryClient | None,
) -> None:
    with unbuffered_keys() as has_keys:
        screen = Screen(wishes.fields, clock=time.time, top=wishes.top, has_keys=has_keys)
        painter = Painter(screen, console)
        subscription = Subscription(symbols, follow_symbols, screen)
        helpers: list[Callable[[], Awaitable[None]]] = [
            partial(redraw, screen, painter),
            partial(tick, screen),
        ]
        if history is not None:
            helpers.append(partial(fill_in, screen, history))
        screen.changed.set()
        with painter.on_terminal():
            async with trio.open_nursery() as tasks:
                for helper in helpers:
                    tasks.start_soon(helper)
                tasks.start_soon(_obey_signals, screen, painter, tasks.cancel_scope)
                if has_keys:
                    tasks.start_soon(_obey, Controls(screen, subscription), tasks.cancel_scope)
                await subscription.run()


async def _obey(controls: Controls, scope: trio.CancelScope) -> None:
    """Carry out the user's keys."""
    async for key in keys(lambda: controls.is_typing):
        if controls.press(key):
            scope.cancel()


async def _obey_signals(screen: Screen, painter: Painter, scope: trio.CancelScope) -> None:
    """Draw anew when the terminal has another size, stop at Ctrl-Z, and leave the terminal as it was
    at the end.
    """
    with trio.open_signal_receiver(*SIGNALS) as signals:
        async for each in signals:
            if each == signal.SIGTSTP:
                painter.suspend()
            elif each != signal.SIGWINCH:
                scope.cancel()
            screen.changed.set()
