"""Tells instruments apart that have the same symbol one after the other.

When an instrument gets another symbol, its list of adjustments gets an entry: the symbol that it had,
and the time. So rows, quotes and caches say which instrument they belong to. Instances may hear of
several renames in any order.
"""

from collections.abc import Iterator
from urllib.parse import unquote


def had_symbol(symbol: str, time_us: int) -> str:
    """Return the entry of an instrument that had `symbol` until this time."""
    # Spaces separate entries.
    return f"{symbol.replace('%', '%25').replace(' ', '%20')}@{time_us}"


def symbol_of(entry: str) -> str:
    """Return the symbol that an entry names, '' for the entries of splits and new beginnings."""
    symbol, _, _ = entry.rpartition("@")
    # No symbol is in lower case.
    return "" if symbol == "fresh" else unquote(symbol)


def former_symbols(adjustments: str) -> Iterator[tuple[str, str]]:
    """Yield the symbols that an instrument had, the last one first, with its adjustments then."""
    entries = adjustments.split()
    for place in reversed(range(len(entries))):
        if symbol := symbol_of(entries[place]):
            yield symbol, " ".join(entries[:place])


def is_continued(adjustments: str, later: str) -> bool:
    """Return whether an instrument with these `adjustments` can have the `later` ones, and no other
    symbol meanwhile.
    """
    entries, more = adjustments.split(), later.split()
    continued = more[: len(entries)] == entries
    return continued and not any(map(symbol_of, more[len(entries) :]))


def same_instrument(symbol: str, one: str, other: str) -> bool:
    """Return whether two lists of adjustments, both of `symbol`, belong to one instrument. One of them
    may be from before the instrument had other symbols, and got this one again.
    """
    if one == other:
        return True
    shorter, longer = sorted((_symbols(one), _symbols(other)), key=len)
    further = longer[len(shorter) :]
    if longer[: len(shorter)] != shorter:
        return False
    return not further or symbol_of(further[0]) == symbol


def _symbols(adjustments: str) -> list[str]:
    return [entry for entry in adjustments.split() if symbol_of(entry)]
