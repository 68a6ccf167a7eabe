"""Files of instruments, and a server's answers about them."""

from pathlib import Path

from tests.processes import ServerProcess

CSV = "symbol,name,type,price,market_cap\n"


def write(folder: Path, *rows: str) -> str:
    file = folder / "instruments.csv"
    file.write_text(CSV + "".join(f"{row}\n" for row in rows))
    return str(file)


def names(server: ServerProcess, symbols: str) -> dict[str, str]:
    status, body = server.ask(f"/market-data?symbols={symbols}")
    assert status == 200
    return {each["symbol"]: each["name"] for each in body}


def knows(server: ServerProcess, expected: dict[str, str]) -> bool:
    return names(server, ",".join(expected)) == expected


def has_saved(server: ServerProcess) -> bool:
    return server.metric("market_data_prices_saved_total") > 0
