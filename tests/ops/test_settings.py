"""Each setting is documented, and the documents name no other."""

import re

from server.config.settings import Settings
from tests.ops.documented import DOCUMENTS, documented, unmatched

VARIABLE = re.compile(r"[A-Z]+(_[A-Z]+)*")


def test_every_setting_is_documented():
    """Every setting is in a document, and the tables' first column has no unknown variable."""
    lines = [line for document in DOCUMENTS for line in document.read_text().splitlines()]
    first_cells = [line.split("|")[1] for line in lines if line.startswith("|")]
    variables = {name.upper() for name in Settings.__struct_fields__}
    undocumented, _ = unmatched(list(documented(lines, VARIABLE)), variables)
    _, unknown = unmatched(list(documented(first_cells, VARIABLE)), variables)
    assert not undocumented
    assert not unknown
