"""The instruments shipped inside the package (see `instruments.md` for sources)."""

from pathlib import Path

from server.quotes.instrument import Instrument
from server.store.importing import read_instruments


def load_instruments() -> list[Instrument]:
    """Return all shipped instruments, 503 companies and ten exchange-traded funds."""
    return read_instruments(Path(__file__).with_name("instruments.csv")).instruments
