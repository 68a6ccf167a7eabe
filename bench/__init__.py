"""The benchmark: `scripts/bench SCENARIO` measures the server, as its clients see it."""

import sys
from importlib.util import find_spec

if find_spec("hdrh") is None:
    sys.exit("bench: packages are missing that serving does not need: scripts/bench installs them")
