"""How a search compares names and symbols: folding, words, typing errors, ranks.

Folding happens here and in no database, whose results depend on its locale and encoding. A catalogue
keeps the words of each name, finds candidates by an index of them, and ranks these with `rank`. So
Postgres, SQLite and memory find the same.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence

from server.quotes.instrument import normalize_symbol
from server.quotes.snapshot import Snapshot

MIN_TYPO_LENGTH = 5
"""Letters from which on a word may hold one typing error; most shorter words are one error apart."""

MAX_WORDS = 16
"""Words of a search that are looked for. A longer one is a text that was pasted."""

_LETTERS = str.maketrans(
    {
        "ø": "o",
        "đ": "d",
        "ð": "d",
        "ł": "l",
        "ħ": "h",
        "ŧ": "t",
        "ı": "i",
        "æ": "ae",
        "œ": "oe",
        "þ": "th",
    }
)
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
    return list(words)


def query_words(query: str) -> list[str]:
    """Return the words that `query` asks for, MAX_WORDS at most."""
    return list(dict.fromkeys(_WORD.findall(fold(query))))[:MAX_WORDS]


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


def rank(row: Snapshot, query: str, *, forgiving: bool = False) -> tuple[int, str] | None:
    """Return where `row` stands among the results of `query`, None if it is not one. Smaller is better.

    0 the symbol; 1 another spelling of it; 2 symbols that begin with it; 3 those of another spelling;
    4 names with all its words, the first in front; 5 other such names; 6, 7 the same where words begin
    with those of the query. Within a rank, by symbol.

    Arguments:
        forgiving: take words that are one typing error away, too. For a search that found nothing.
    """
    prefix = normalize_symbol(query)
    if (place := _symbol_rank(row.symbol, prefix)) is None:
        place = _name_rank(name_words(row.name), query_words(query), forgiving=forgiving)
    return None if place is None else (place, row.symbol)


def _symbol_rank(symbol: str, prefix: str) -> int | None:
    key, wanted = symbol_key(symbol), symbol_key(prefix)
    if not wanted:
        return None
    tests = (symbol == prefix, key == wanted, symbol.startswith(prefix), key.startswith(wanted))
    return tests.index(True) if any(tests) else None


def _name_rank(words: Sequence[str], wanted: Sequence[str], *, forgiving: bool) -> int | None:
    if not wanted:
        return None
    if all(word in words for word in wanted):
        return 4 if words[0] == wanted[0] else 5
    beginnings = [tuple(variants(each)) if forgiving else (each,) for each in wanted]
    if not all(any(word.startswith(each) for word in words) for each in beginnings):
        return None
    return 6 if words[0].startswith(beginnings[0]) else 7
