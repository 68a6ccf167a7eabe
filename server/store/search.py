"""How a search compares names and symbols: folding, words, typing errors, ranks.

Folding happens here and in no database, whose results depend on its locale and encoding. A catalogue
keeps the words of each name, finds candidates by an index of them, and ranks these with `rank`. So
Postgres, SQLite and memory find the same.
"""

import re
import unicodedata
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from server.quotes.instrument import normalize_symbol
from server.quotes.snapshot import Snapshot

MIN_TYPO_LENGTH = 5
"""Letters from which on a word may hold one typing error; most shorter words are one error apart."""

MAX_WORD_LENGTH = 255
"""Characters of a word. Postgres takes lexemes of 2 KB."""

CANDIDATES = 1000
"""Rows that one step of a search ranks at most. If more rows match, the rest is not looked at."""

MAX_WORDS = 16
"""Words of a search that are looked for. A longer one is a text that was pasted."""

MAX_JOINED = 4
"""Words of a search that may be one word of a name: `J P Morgan Chase` has four."""

_LETTERS = str.maketrans("øđðłħŧı", "oddlhti") | {ord("æ"): "ae", ord("œ"): "oe", ord("þ"): "th"}
"""Letters that Unicode does not decompose, as they are typed on a keyboard without them."""

_TOKEN = re.compile(r"\S+")
_WORD = re.compile(r"[^\W_]+")
_SEPARATORS = str.maketrans("", "", "-/. ")

_ALPHABETS = (
    "abcdefghijklmnopqrstuvwxyz0123456789",
    "абвгдежзиклмнопрстуфхцчшщъыьэюя",
    "αβγδεζηθικλμνξοπρσςτυφχψω",
)


def fold(text: str) -> str:
    """Return `text` without case, marks and widths: `Estée` and `ESTEE` are both `estee`.

    NFKD (Unicode Standard Annex #15) and full case folding, then the marks are removed.
    """
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(each for each in decomposed if not unicodedata.combining(each))
    return plain.translate(_LETTERS)


def name_words(name: str) -> list[str]:
    """Return the words by which `name` is found, each once, the first word of the name first.

    Punctuation of any script parts words. What it joins without a space is found as one word, too:
    `O’Reilly` by o, reilly and oreilly, `AT&T` by at, t and att.
    """
    words: dict[str, None] = {}
    for token in _TOKEN.findall(fold(name)):
        parts = _WORD.findall(token)
        words |= dict.fromkeys(parts)
        if len(parts) > 1:
            words["".join(parts)] = None
    return list(dict.fromkeys(word[:MAX_WORD_LENGTH] for word in words))


def query_words(query: str) -> list[str]:
    """Return the words that `query` asks for, MAX_WORDS at most."""
    words = dict.fromkeys(word[:MAX_WORD_LENGTH] for word in _WORD.findall(fold(query)))
    return list(words)[:MAX_WORDS]


def joined(words: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the ways to write each word: alone, and in one word with its neighbours. So `McDonald's`
    finds `MCDONALDS CORP`, and `jp morgan chase` finds `JPMorgan Chase`.
    """
    ways = [[word] for word in words]
    for size in range(2, MAX_JOINED + 1):
        for first in range(len(words) - size + 1):
            one = "".join(words[first : first + size])[:MAX_WORD_LENGTH]
            for way in ways[first : first + size]:
                way.append(one)
    return [*map(tuple, ways)]


def symbol_key(symbol: str) -> str:
    """Return what the spellings `BRK-B`, `BRK/B`, `BRK.B` and `BRK B` have in common."""
    return symbol.translate(_SEPARATORS)


def variants(word: str) -> list[str]:
    """Return `word` and every word one typing error from it: a letter too few, too many, another one,
    or two that changed places. A word that is too short to forgive one has no other.

    Some 70 for each letter, to be looked up in an index: it needs no room, unlike an index of them.
    """
    if len(word) < MIN_TYPO_LENGTH:
        return [word]
    letters = "".join(each for each in _ALPHABETS if set(each) & set(word)) or _ALPHABETS[0]
    return list(dict.fromkeys([word, *_one_error(word, letters)]))


def _one_error(word: str, letters: str) -> Iterator[str]:
    for at in range(len(word) + 1):
        head, tail = word[:at], word[at:]
        for letter in letters:
            yield head + letter + tail
            if tail:
                yield head + letter + tail[1:]
        if tail:
            yield head + tail[1:]
        if len(tail) > 1:
            yield head + tail[1] + tail[0] + tail[2:]


class Query(NamedTuple):
    """A search: `prefix` and `key` of a symbol, the words of a name, and the beginnings that each may
    have.
    """

    prefix: str
    key: str
    words: list[str]
    beginnings: list[tuple[str, ...]]


def parse_query(text: str, *, forgiving: bool = False) -> Query:
    """Read a search. `forgiving`: take beginnings that are one typing error away, too."""
    prefix, words = normalize_symbol(text), query_words(text)
    beginnings = [tuple(variants(word)) if forgiving else (word,) for word in words]
    return Query(prefix, symbol_key(prefix), words, beginnings)


def rank(row: Snapshot, query: Query) -> tuple[int, str] | None:
    """Return where `row` stands among the results of `query`, None if it is not one. Smaller is better.

    0 the symbol; 1 another spelling of it; 2 symbols that begin with it; 3 those of another spelling;
    4 names with all its words, the first in front; 5 other such names; 6, 7 the same where words begin
    with those of the query. Within a rank, by symbol.
    """
    if (place := _symbol_rank(row.symbol, query)) is None:
        place = _name_rank(name_words(row.name), query)
    return None if place is None else (place, row.symbol)


def _symbol_rank(symbol: str, query: Query) -> int | None:
    if not query.key:
        return None
    key = symbol_key(symbol)
    tests = (
        symbol == query.prefix,
        key == query.key,
        symbol.startswith(query.prefix),
        key.startswith(query.key),
    )
    return tests.index(True) if any(tests) else None


def _name_rank(words: Sequence[str], query: Query) -> int | None:
    if not query.words:
        return None
    if all(word in words for word in query.words):
        return 4 if words[0] == query.words[0] else 5
    if not all(any(word.startswith(each) for word in words) for each in query.beginnings):
        return None
    return 6 if words[0].startswith(query.beginnings[0]) else 7


Groups = Sequence[Sequence[str]]
"""Alternatives for each word of a search."""


class SearchIndex(Protocol):
    """The lookups of a catalogue. Each returns CANDIDATES rows at most, and no delisted ones."""

    async def by_symbol(self, prefix: str, key: str, limit: int) -> list[Snapshot]:
        """Return up to `limit` rows whose symbol begins with `prefix` and as many whose `symbol_key`
        begins with `key`, the first by symbol and by key.
        """

    async def by_words(self, groups: Groups, *, whole: bool) -> list[Snapshot]:
        """Return rows whose names have, for each group, one of its words, or a word that begins so."""


async def search(index: SearchIndex, text: str, limit: int) -> list[Snapshot]:
    """Return the rows that a search finds, the best first."""
    query = parse_query(text)
    found: list[Snapshot] = []
    if query.key:
        found += await index.by_symbol(query.prefix, query.key, limit)
    if query.words:
        found += await index.by_words(query.beginnings, whole=True)
        if len(found) < limit:
            found += await index.by_words(query.beginnings, whole=False)
    if not found and len(query.words) > 1:
        query = query._replace(beginnings=joined(query.words))
        found += await index.by_words(query.beginnings, whole=False)
    if not found and any(len(word) >= MIN_TYPO_LENGTH for word in query.words):
        query = parse_query(text, forgiving=True)
        found += await index.by_words(query.beginnings, whole=False)
    ranks = {row.symbol: (rank(row, query), row) for row in found}
    ranked = sorted((place, row) for place, row in ranks.values() if place is not None)
    return [row for _, row in ranked[:limit]]


class WordIndex:
    """The symbols of names by word, in memory."""

    def __init__(self) -> None:
        self._symbols: defaultdict[str, set[str]] = defaultdict(set)
        self._names: dict[str, str] = {}
        self._sorted: list[str] | None = None

    def put(self, symbol: str, name: str) -> None:
        """Index `name`, in place of the symbol's former one."""
        old = self._names.get(symbol)
        if old == name:
            return
        for word in name_words(old) if old else ():
            self._symbols[word].discard(symbol)
        for word in name_words(name):
            self._symbols[word].add(symbol)
        self._names[symbol] = name
        self._sorted = None

    def find(self, groups: Groups, *, whole: bool) -> set[str]:
        """Return the symbols of the names that `SearchIndex.by_words` looks for."""
        return set.intersection(*(self._of_group(group, whole=whole) for group in groups))

    def _of_group(self, group: Sequence[str], *, whole: bool) -> set[str]:
        words = group if whole else [word for each in group for word in self._beginning(each)]
        return set[str]().union(*(self._symbols.get(word, ()) for word in words))

    def _beginning(self, prefix: str) -> Iterator[str]:
        if self._sorted is None:
            self._sorted = sorted(self._symbols)
        for at in range(bisect_left(self._sorted, prefix), len(self._sorted)):
            if not self._sorted[at].startswith(prefix):
                return
            yield self._sorted[at]
