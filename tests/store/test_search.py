"""How names and symbols are compared, whatever the store."""

import pytest

from server.quotes.instrument import Instrument
from server.quotes.snapshot import opening_snapshot
from server.store.search import (
    MAX_WORDS,
    fold,
    name_words,
    parse_query,
    query_words,
    rank,
    variants,
)
from tests.store.conftest import fill


def found(query: str, **names: str) -> list[str]:
    """The symbols that `query` finds among `names` by symbol, in their order."""
    rows = [
        opening_snapshot(Instrument(symbol=symbol, name=name, base_price=1.0))
        for symbol, name in names.items()
    ]
    for forgiving in (False, True):
        parsed = parse_query(query, forgiving=forgiving)
        ranks = [each for row in rows if (each := rank(row, parsed))]
        if ranks:
            break
    return [symbol for _, symbol in sorted(ranks)]


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("Estée", "estee"),
        ("Este\u0301e", "estee"),
        ("ＡＰＰＬＥ", "apple"),
        ("Ørsted", "orsted"),
        ("Straße", "strasse"),
        ("İŞBANK", "isbank"),
        ("ﬁnance", "finance"),
        ("Ελλάδα", "ελλαδα"),
        ("Москва", "москва"),
    ],
)
def test_folding(text, folded):
    """Case, marks, widths and ligatures do not count."""
    assert fold(text) == folded


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("O’Reilly Automotive", ["o", "reilly", "oreilly", "automotive"]),
        ("Brown–Forman", ["brown", "forman", "brownforman"]),
        ("AT&T Inc.", ["at", "t", "att", "inc"]),
        ("Macy's", ["macy", "s", "macys"]),
        ("  ", []),
        ("_—_", []),
        ("トヨタ自動車", ["トヨタ自動車"]),
    ],
)
def test_words_of_a_name(name, words):
    """Punctuation of any script parts words; what it joins is a word, too."""
    assert name_words(name) == words


@pytest.mark.parametrize(
    "query",
    [
        "O'Reilly",
        "O’Reilly",
        "OʼReilly",
        "reilly",
        "oreilly",
        "REILLY",
        "o reilly",
        "Reily",
        "reillly",
        "rielly",
    ],
)
def test_orly(query):
    """As people type it, with one error in a word of five letters."""
    assert found(query, ORLY="O’Reilly Automotive", AAPL="Apple") == ["ORLY"]


@pytest.mark.parametrize("query", ["BRK-B", "BRK/B", "BRK.B", "brk b", "brkb"])
@pytest.mark.parametrize("symbol", ["BRK-B", "BRK/B", "BRK.B"])
def test_spellings_of_a_symbol_find_each_other(query, symbol):
    """Vendors part the class of a share by a dash, a slash, a point."""
    assert found(query, **{symbol: "Berkshire Hathaway", "BRKR": "Bruker"}) == [symbol]


def test_whole_words_come_before_beginnings():
    """A user who asks for AT&T does not look for ATA Creativity."""
    names = {
        "AACG": "ATA Creativity Global T",
        "T": "AT&T",
        "ATAT": "Atour Technologies",
        "X": "Tate at",
    }
    assert found("AT&T", **names)[0] == "T"
    assert found("AT&T", **names) == ["T", "AACG", "ATAT", "X"]


def test_an_error_is_forgiven_when_nothing_else_matches():
    """In a word of five letters or more."""
    assert found("apple", AAPL="Apple", APLE="Appel Hospitality") == ["AAPL"]
    assert found("appel", AAPL="Apple") == ["AAPL"]
    assert found("bull", BALL="Ball") == []


def test_variants_are_one_error_away():
    """Too few, too many, another, changed places; also in other alphabets, not in short words."""
    near = set(variants("lauder"))
    assert {"lauder", "lader", "lauders", "lander", "laudre", "alauder"} <= near
    assert not {"lau", "ladre", "laude rs"} & near
    assert "газпром" in variants("газпрам")
    assert variants("ford") == ["ford"]
    assert len(variants("x" * 200)) < 200 * 75


def test_query_is_bounded():
    """Of a pasted text the first words count."""
    assert len(query_words(" ".join(f"w{n}" for n in range(1000)))) == MAX_WORDS
    assert query_words("'; DROP TABLE--") == ["drop", "table"]


def test_words_that_are_too_long_are_cut_and_stay_unique():
    """Two words that differ only behind the cut are one."""
    words = name_words("w" * 300 + "-y " + "w" * 400)
    assert words == ["w" * 255, "y"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("McDonald's", ["MCD"]),
        ("mcdonald’s corp", ["MCD"]),
        ("Coca-Cola", ["KO"]),
        ("jp morgan", ["JPM"]),
        ("J.P. Morgan", ["JPM"]),
        ("J P Morgan chase", ["JPM"]),
        ("exxon mobil", ["XOM"]),
        ("Exxon-Mobil", ["XOM"]),
        ("exxonmobil", ["XOM"]),
        ("at & t", ["T"]),
        ("t morgan", []),
        ("chase jp", ["JPM"]),
        ("mobil", []),
    ],
)
async def test_name_is_written_in_one_word(catalogue, query, expected):
    """The list has a name without the punctuation or the space that people type, or the reverse."""
    names = {
        "MCD": "MCDONALDS CORP",
        "KO": "COCA COLA CO",
        "JPM": "JPMorgan Chase & Co.",
        "XOM": "ExxonMobil Corporation",
        "T": "AT&T Inc.",
    }
    await fill(
        catalogue,
        *(Instrument(symbol=symbol, name=name, base_price=1.0) for symbol, name in names.items()),
    )
    assert [row.symbol for row in await catalogue.search(query, 20)] == expected
