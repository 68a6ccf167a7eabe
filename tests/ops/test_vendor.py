"""Code of others that the pages load: it is what its table says, and comes with its licence."""

import re
from hashlib import sha256
from importlib.resources import files

VENDOR = files("server.web") / "vendor"

ROW = re.compile(
    r"^\| `(?P<file>[^`]+\.js)` \| [^|]+ \| (?P<version>[^ ]+) \| [^|]*`(?P<licence>[^`]+)` "
    r"\| `(?P<checksum>[0-9a-f]{64})` \|$",
    re.MULTILINE,
)


def test_each_file_has_its_checksum_and_licence():
    """No file was changed or added without its row."""
    rows = list(ROW.finditer((VENDOR / "README.md").read_text()))
    scripts = {each.name for each in VENDOR.iterdir() if each.name.endswith(".js")}
    assert {row["file"] for row in rows} == scripts
    for row in rows:
        content = (VENDOR / row["file"]).read_bytes()
        assert sha256(content).hexdigest() == row["checksum"]
        assert f"v{row['version']}\n".encode() in content
        assert "Apache License" in (VENDOR / row["licence"]).read_text()
