"""Instrument files as exchanges, brokers and spreadsheets write them."""

from pathlib import Path
from random import Random

import pytest

from server.quotes.instrument import MAX_NAME_LENGTH
from server.store.cells import read_number
from server.store.importing import BadFile, Contents, read_instruments
from tests.cli.command import complaint, run


@pytest.fixture
def read(tmp_path):
    """Reads a file of the text or bytes given, with the columns named."""

    def read(contents: str | bytes, **columns: str) -> Contents:
        file = tmp_path / "file.csv"
        file.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
        return read_instruments(file, columns)

    return read


def test_download_of_an_exchange(read):
    """Dollars, groups, headers under other names, columns that nobody needs."""
    found, problems, assumed = read(
        "Symbol,Name,Last Sale,Net Change,% Change,Market Cap,Country\n"
        'AAPL,Apple Inc. Common Stock,"$1,234.56",0.5,0.1%,2890000000000.00,US\n'
        "SMALL,Small Cap,$0.0151,0,0%,1.2B,US\n"
        "NONE,No Cap,$3.5,0,0%,,US\n"
    )
    assert not problems
    assert [(each.base_price, each.price_decimals, each.market_cap) for each in found] == [
        (1234.56, 2, 2_890_000_000_000),
        (0.0151, 4, 1_200_000_000),
        (3.5, 2, None),
    ]
    assert assumed == ["price is the column 'Last Sale'", "market_cap is the column 'Market Cap'"]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separators(read, separator):
    """Each is recognized by the header."""
    rows = [["SYMBOL", "Security Name", "LAST"], ["BRK.B", "Berkshire", "412.5"]]
    found, problems, assumed = read("\r\n".join(separator.join(row) for row in rows))
    assert not problems
    assert [(each.symbol, each.name, each.base_price) for each in found] == [
        ("BRK.B", "Berkshire", 412.5)
    ]
    assert any("separated" in each for each in assumed) is (separator != ",")


def test_instruments_of_every_kind(read):
    """Currency, exchange, ISIN, precision and the previous close, under the headers that files have."""
    found, problems, assumed = read(
        "Ticker,Security,Asset Class,Currency,Exchange,ISIN,Last,Prev Close,Size Precision\n"
        "btc/usd,Bitcoin,Cryptocurrency,usd,Kraken,,43210.5,42000,8\n"
        "7203.T,Toyota,1,JPY,XTKS,jp3633400001,2500,N/A,\n"
        "VOD.L,Vodafone,equity,GBp,XLON,GB00BH4HKS39,72.5,,\n"
        "CLK0,Crude oil,Future,,XNYM,,-37.63,-1.25,0\n"
        "WTS,Warrant,warrant,EUR,,,0,,2\n"
    )
    assert not problems
    btc, toyota, vodafone, oil, warrant = found
    assert [each.type for each in found] == ["CRYPTO", "STOCK", "STOCK", "FUTURE", "OTHER"]
    assert [each.currency for each in found] == ["USD", "JPY", "GBX", "USD", "EUR"]
    assert (btc.symbol, btc.exchange, btc.size_decimals) == ("BTC/USD", "Kraken", 8)
    assert (btc.base_price, btc.previous_close) == (43210.5, 42000.0)
    assert (toyota.isin, toyota.previous_close, toyota.size_decimals) == ("JP3633400001", None, 0)
    assert (oil.base_price, oil.previous_close, vodafone.isin) == (-37.63, -1.25, "GB00BH4HKS39")
    assert (warrant.base_price, warrant.isin, warrant.exchange) == (0.0, None, None)
    assert "size_decimals is the column 'Size Precision'" in assumed


def test_price_of_a_bitcoin_in_rupiahs(read):
    """Prices in small currencies have ten digits and more, and keep their cents."""
    found, problems, _ = read(
        "symbol,name,type,currency,price\nBTC/IDR,Bitcoin,CRYPTO,IDR,1523456789.25\n"
        "LARGEST,Largest,CRYPTO,IDR,90000000000000.00\n"
    )
    assert not problems
    assert [each.base_price for each in found] == [1523456789.25, 9e13]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("A,A,STOCK,USD,,-1,,", "not a price: '-1'"),
        ("A,A,CRYPTO,USD,,0,,", "not a price: '0'"),
        ("A,A,FUTURE,USD,,-1e14,,", "not a price: '-1e14'"),
        ("A,A,STOCK,U S,,1,,", "not the code of a currency: 'U S'"),
        ("A,A,STOCK,USD,US123,1,,", "not an ISIN: 'US123'"),
        ("A,A,STOCK,USD,,1,13,", "size_decimals is not a whole number from 0 to 12: '13'"),
        ("A,A,STOCK,USD,,1,,-5", "not a price: '-5'"),
        ("A,A,11,USD,,1,,", "type is not one of STOCK, ETF, INDEX, FUND, CRYPTO"),
    ],
)
def test_cell_that_a_kind_cannot_have(read, row, problem):
    """The problem names the cell."""
    header = "symbol,name,type,currency,isin,price,size_decimals,previous_close\n"
    found, problems, _ = read(f"{header}{row}\n")
    assert not found
    assert problem in problems[0].problem


@pytest.mark.parametrize(
    ("text", "price"),
    [
        ("\N{MINUS SIGN}37.63", -37.63),
        ("\N{EN DASH}37.63", -37.63),
        ("\N{FULLWIDTH HYPHEN-MINUS}37.63", -37.63),
        ("(37.63)", -37.63),
        ("($1,037.63)", -1037.63),
        ("-$37.63", -37.63),
        ("$ -37.63", -37.63),
        ("HK$600.5", 600.5),
        ("US$ 1,234.56", 1234.56),
        ("₹12,34,567.89", 1234567.89),
        ("12.50 USD", 12.5),
        ("CHF 1’234.50", 1234.5),
        ("1234.5 €", 1234.5),
        ("₿0.05", 0.05),
    ],
)
def test_number_as_people_write_it(read, text, price):
    """Minus signs of typography, parentheses of accountants, currencies in front and behind."""
    found, problems, _ = read(f'symbol,name,type,price\nCLK0,Oil,FUTURE,"{text}"\n')
    assert not problems
    assert [each.base_price for each in found] == [price]


@pytest.mark.parametrize(
    "text",
    [
        f"1{' ' * 100_000}x",
        f"-{' ' * 100_000}x",
        "(5",
        "5)",
        "--5",
        "-(5)",
        "abc12",
        "12abc",
        "5%",
        "1_0",
        "()",
        "$",
    ],
)
def test_text_that_is_not_a_number(read, text):
    """It is named, or is a missing price; no digits are picked out of it."""
    found, problems, _ = read(f'symbol,name,type,price\nCLK0,Oil,FUTURE,"{text}"\n')
    assert bool(problems) is (text != "$")
    assert [each.base_price for each in found] == ([None] if text == "$" else [])


def test_comments_are_not_instruments(read):
    """A file with a comment in front of its header may have them anywhere. Others have symbols."""
    rows = "symbol,name,price\nAAA,One,1\n#BBB,Two,2\n"
    found, problems, assumed = read(f"# made by hand\n{rows}")
    assert not problems
    assert [each.symbol for each in found] == ["AAA"]
    assert "lines that begin with # are comments" in assumed
    assert [each.symbol for each in read(rows).instruments] == ["AAA", "#BBB"]


def test_european_numbers(read):
    """A comma that cannot part thousands is a decimal comma, in the whole column."""
    found, _, assumed = read(
        "symbol;name;price;market_cap\nSAP;SAP;1.234,5;1.000\nVOW;VW;98,70;2.000.000\nX;X;1.000;3\n"
    )
    assert [each.base_price for each in found] == [1234.5, 98.7, 1000.0]
    assert "numbers have a decimal comma" in assumed
    assert [each.market_cap for each in found] == [1000, 2_000_000, 3]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
def test_encodings(read, encoding):
    """Spreadsheets save what they like; the name is the same."""
    found, _, assumed = read("symbol,name,price\nNESN,Nestl\u00e9 \u2013 A,1\n".encode(encoding))
    assert [each.name for each in found] == ["Nestl\u00e9 \u2013 A"]
    assert bool(assumed) is not encoding.startswith("utf-8")


def test_names_become_one_printable_line(read):
    """No-break spaces, control characters and names that are too long for the table."""
    found, problems, _ = read(
        f'symbol,name,price\nA,"No\u00a0break\x07\n two",1\nB,{"x" * 300},1\n'
    )
    assert not problems
    assert [each.name for each in found] == ["No break two", "x" * MAX_NAME_LENGTH]


@pytest.mark.parametrize(
    ("price", "expected", "decimals"),
    [
        ("0.0151", 0.0151, 4),
        ("0.5", 0.5, 4),
        ("0.00001234", 0.00001234, 8),
        ("1.2345e-5", 0.000012345, 9),
        ("12", 12.0, 2),
        ("12.3400", 12.34, 4),
        ("175.92000000000002", 175.92, 2),
        ("+3.10", 3.1, 2),
        ("1'234.50", 1234.5, 2),
        ("$ 12.5", 12.5, 2),
    ],
)
def test_decimals_are_those_that_the_text_shows(read, price, expected, decimals):
    """Nothing is rounded in silence. A float's noise does not count as decimals."""
    [found] = read(f"symbol,name,price\nA,A,{price}\n").instruments
    assert (found.base_price, found.price_decimals) == (expected, decimals)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1.2.3",
        "--5",
        "1e",
        "e5",
        "x",
        "1x",
        "$",
        "1e99999999999999999999",
        "0x10",
        "\u0661",
        "1,2.3,4e",
    ],
)
def test_cell_that_is_no_number(text):
    """It is None, and raises nothing."""
    assert read_number(text) is None


def test_any_cell_is_read_or_refused(read):
    """Whatever stands in a file, it is an instrument or a problem."""
    random = Random(5)
    cells = "0123456789.,'$€-+eEkKmbt% \u00a0xNaN∞"
    rows = ["".join(random.choices(cells, k=random.randint(0, 12))) for _ in range(3000)]
    found = 0
    for row in rows:
        try:
            contents = read(f'symbol,name,price,market_cap\nS,N,"{row}","{row}"\n')
        except BadFile:
            continue
        assert len(contents.instruments) + len(contents.problems) == 1
        found += len(contents.instruments)
    assert found > 50


def test_two_decimal_signs_in_one_file_are_refused(read):
    """Either reading would make a price a hundredfold of another."""
    with pytest.raises(BadFile, match="decimal comma and others a decimal point"):
        read('symbol,name,price,market_cap\nA,A,175.50,"1,234"\nB,B,12.00,"12,5"\n')


def test_columns_can_be_named(read):
    """Where the header does not tell."""
    text = "id,long,px\nAAPL,Apple,5\n"
    with pytest.raises(
        BadFile, match="no column symbol, name, price, but 'id, long, px'; --map symbol="
    ):
        read(text)
    [found] = read(text, symbol="ID", name="Long", price="PX").instruments
    assert (found.symbol, found.name, found.base_price) == ("AAPL", "Apple", 5.0)
    with pytest.raises(BadFile, match="the header has no column 'nope'"):
        read(text, symbol="nope")


BAD = "symbol,name,price\nA,A,1\nB,B,x\nC D,C,2\nE,E,5\nA,A,6\n"


def test_all_bad_rows_are_listed_and_nothing_is_imported(tmp_path):
    """Or the others, where that is asked for."""
    file = tmp_path / "bad.csv"
    file.write_text(BAD)
    done = run(tmp_path, "import", str(file))
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert [line.split(f"{file} ")[1][:7] for line in lines] == ["line 3:", "line 4:", "line 6:"]
    assert "3 bad rows; --skip-bad lists the others" in lines[-1]
    assert not (tmp_path / "quotestream" / "quotes.db").exists()
    done = run(tmp_path, "import", "--skip-bad", str(file))
    assert (done.returncode, done.stdout) == (0, "2 instruments listed\n")
    file.write_text("symbol,name,price\nA,A,x\n")
    assert "(1 bad row; --skip-bad" in run(tmp_path, "import", str(file)).stderr
    assert len(done.stderr.splitlines()) == 3


def test_dry_run_changes_nothing(tmp_path):
    """It shows what would be listed, and how the file was read."""
    file = tmp_path / "some.csv"
    file.write_text("Ticker;Company;Close\nAAPL;Apple;175,5\n")
    done = run(tmp_path, "import", "--dry-run", str(file))
    assert done.returncode == 0
    assert done.stdout.split() == [
        "AAPL",
        "175.50",
        "Apple",
        "1",
        "instrument",
        "would",
        "be",
        "listed",
    ]
    assert "symbol is the column 'Ticker'" in done.stderr
    assert not (tmp_path / "quotestream" / "quotes.db").exists()


@pytest.mark.parametrize("argument", ["price", "price=", "cost=Last"])
def test_wrong_map_is_refused(tmp_path, argument):
    """The message names the fields there are."""
    done = run(tmp_path, "import", "--map", argument, "x.csv")
    assert done.returncode == 2
    assert "FIELD=HEADER with a field of symbol, name" in done.stderr.splitlines()[-1]


def test_empty_file_is_refused(tmp_path):
    """An import of nothing would look like a success."""
    file = Path(tmp_path / "empty.csv")
    file.write_text("symbol,name,price\n")
    assert "it holds no instrument" in complaint(tmp_path, "import", str(file))


@pytest.mark.parametrize(
    ("preamble", "row"),
    [
        ("sep=;\n", "AAPL;Apple;100,5"),
        ("# exported by a broker, with a comma\n\n", "AAPL,Apple,100.5"),
        ("Listing of 2026-11-26\r\nAll prices in USD\r\n", '="AAPL",Apple,100.5'),
        ("Symbols\r", "AAPL\tApple\t100.5\t"),
    ],
)
def test_lines_before_the_header(read, preamble, row):
    """They are left out, and bad rows keep their line numbers. Spreadsheets keep texts as formulas, and
    leave empty cells at the end.
    """
    separator = next(each for each in "\t;," if each in row)
    header = separator.join(["Ticker", "Company", "Last"])
    end = "\r" if "\r" in preamble and "\n" not in preamble else "\n"
    found, problems, assumed = read(f"{preamble}{header}{end}{row}{end}?,?{end}")
    assert [(each.symbol, each.base_price) for each in found] == [("AAPL", 100.5)]
    assert [each.line for each in problems] == [len(preamble.splitlines()) + 3]
    assert assumed[0] == f"the header is {header!r}"


def test_symbol_directory_of_nasdaq_trader(read):
    """Its last line says when it was made."""
    found, problems, assumed = read(
        "Symbol|Security Name|Market Category|ETF\n"
        "AAPL|Apple Inc. - Common Stock|Q|N\nQQQ|Invesco QQQ|G|Y\n"
        "File Creation Time: 1126202621:31|||\n"
    )
    assert not problems
    assert [(each.symbol, each.type) for each in found] == [("AAPL", "STOCK"), ("QQQ", "ETF")]
    assert "line 4 is the end of the file" in assumed


def test_columns_may_begin_with_a_number(read):
    """A header is found also if its first column has no name."""
    [found], problems, _ = read("#,Symbol,Name,Price\n1,AAPL,Apple,5\n")
    assert (found.symbol, problems) == ("AAPL", [])


@pytest.mark.parametrize("text", ["$n/a", "$", "n.a.", "—", "$-", "nil"])
def test_price_that_is_missing(read, text):
    """Whatever stands for it, the instrument waits for its first trade."""
    [found], problems, _ = read(f"symbol,name,price\nAAPL,Apple,{text}\n")
    assert (found.base_price, problems) == (None, [])
