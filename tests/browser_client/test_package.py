"""`quotes.js` is a package of npm, and its types name what it has."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import server
from tests.browser_client.node import PATIENCE, RUNNERS, command
from tests.programs import program

WEB = Path(server.__file__).parent / "web"


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Pack the package as npm does, unpack it as a dependency, and return the names that it has."""
    folder = tmp_path_factory.mktemp("npm")
    npm = program("npm", package="npm")
    pack = [npm, "pack", "--offline", "--pack-destination", str(folder), str(WEB)]
    subprocess.run(pack, cwd=folder, capture_output=True, timeout=PATIENCE, check=True)
    [archive] = folder.glob("*.tgz")
    shutil.unpack_archive(archive, folder, filter="data")
    (folder / "node_modules").mkdir()
    (folder / "package").rename(folder / "node_modules" / "quotestream")
    runner = shutil.copy(RUNNERS / "members.mjs", folder)
    printed = subprocess.run(
        [*command("")[:-1], runner], capture_output=True, text=True, timeout=PATIENCE, check=True
    ).stdout
    found: dict[str, list[str]] = json.loads(printed)
    return found


def test_package_is_complete(names):
    """The package has the module and its types, and the version of the server."""
    package = json.loads((WEB / "package.json").read_text())
    assert package["version"] == server.__version__
    assert set(names["exported"]) >= {"connect", "Quotes", "QuotesError"}
    assert all((WEB / file).exists() for file in package["files"])


def test_types_name_all_members(names):
    """quotes.d.ts has each public member of a connection, and no other."""
    text = (WEB / "quotes.d.ts").read_text()
    body = text[text.index("export class Quotes ") : text.index("/** Open a connection that lasts")]
    typed = set(re.findall(r"^  (?:readonly )?(\w+)[(:<]", body, re.MULTILINE))
    inherited = {"addEventListener", "removeEventListener"}
    assert typed - {"private"} - inherited == set(names["members"]) - {"constructor"}
    exported = set(re.findall(r"^export (?:class|function) (\w+)", text, re.MULTILINE))
    assert exported == set(names["exported"])
