"""The instruments shipped inside the package (see `instruments.md` for sources)."""

from importlib.resources import as_file, files

from server.quotes.instrument import Instrument
from server.store.importing import read_instruments


def load_instruments() -> list[Instrument]:
    """Return all shipped instruments, 503 companies and ten exchange-traded funds."""
    with as_file(files("server.store").joinpath("instruments.csv")) as path:
        return read_instruments(path).instruments
