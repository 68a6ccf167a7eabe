"""Settings of the store that cannot be, and files that cannot be opened."""

import pytest

from tests.cli.command import complaint
from tests.processes import SECRET, ServerProcess, eventually


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATABASE_URL", "mysql://u:secret@h/d"),
        ("DATABASE_URL", "postgresql://u:p@secret@h:x/d"),
        ("DATABASE_URL", "postgresql://u:se/secret@h/d"),
        ("DATABASE_URL", "x"),
        ("REDIS_URL", "http://x"),
        ("DATABASE_URL", "postgresql://h:port/d"),
        ("DATABASE_URL", "postgresql://u:secret@a..b/d"),
        ("REDIS_URL", "redis://u:secret@a..b"),
        ("REDIS_URL", "redis://u:secret@h?socket_timeout=9"),
        ("CACHE_TTL", "0"),
        ("DATABASE_POOL_SIZE", "1"),
        ("CACHE_SYMBOLS", "0"),
        ("PRICE_WRITE_INTERVAL", "never"),
    ],
)
def test_bad_setting_is_named_without_its_password(tmp_path, variable, value):
    """The error is one line that names the variable."""
    line = complaint(tmp_path, "serve", **{variable: value})
    assert line.startswith(f"quotestream: {variable}=")
    assert "secret" not in line


def test_file_that_cannot_be_opened(tmp_path, redis):
    """An unusable SQLITE_PATH stops the start. An unusable default path only causes a warning."""
    (tmp_path / "quotestream").write_text("a file where a folder should be")
    assert "x.db" in complaint(
        tmp_path, "serve", JWT_SECRET=SECRET, SQLITE_PATH=str(tmp_path / "quotestream" / "x.db")
    )
    junk = tmp_path / "junk.db"
    junk.write_text("no database" * 1000)
    for variables in ({}, {"REDIS_URL": redis.url}):
        variables |= {"JWT_SECRET": SECRET, "SQLITE_PATH": str(junk)}
        line = complaint(tmp_path, "serve", **variables)
        assert "SQLITE_PATH" in line
        assert "junk.db" in line
    with ServerProcess(tmp_path) as server:
        assert len(server.ask("/market-data?symbols=AAPL,MSFT")[1]) == 2
        eventually(lambda: any("not kept" in line["event"] for line in server.log_lines()))
