"""Left-out values are counted each, and named once."""

import structlog

from server import invalid
from server.invalid import InvalidRecords


def named(records: InvalidRecords, *keys: object) -> list[str]:
    """The keys that the log has for these reports."""
    with structlog.testing.capture_logs() as lines:
        for key in keys:
            records.report("hash", key, "wrong")
    return [line["key"] for line in lines if "key" in line]


def test_key_is_named_once_for_each_source():
    """Every report counts."""
    records = InvalidRecords()
    assert named(records, "AAPL", "MSFT", "AAPL", "AAPL") == ["AAPL", "MSFT"]
    assert records.counts == {"hash": 4}
    with structlog.testing.capture_logs() as lines:
        records.report("bus", "AAPL", "wrong")
    assert [(line["source"], line["problem"]) for line in lines] == [("bus", "wrong")]


def test_key_of_any_kind_is_one_short_line():
    """No control characters, no megabytes, no text of a value that has none."""
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    keys = ["a\x1b[31m\n", b"\xff\x00", "x" * 10_000, None, deep, "\ud800"]
    assert named(InvalidRecords(), *keys) == [
        r"a\x1b[31m\n", r"\\xff\x00", "x" * 80 + "…", "NoneType", "list", r"\ud800",
    ]  # a table # fmt: skip


def test_memory_and_log_are_bounded(monkeypatch):
    """Beyond a number of keys the rest is counted only; naming begins anew an hour later."""
    monkeypatch.setattr(invalid, "NAMED_KEYS", 3)
    now = 0.0
    records = InvalidRecords(lambda: now)
    with structlog.testing.capture_logs() as lines:
        for key in "ABCDEFA":
            records.report("hash", key, "wrong")
    assert [line.get("key") for line in lines] == ["A", "B", "C", None]
    assert records.counts["hash"] == 7
    now = invalid.NAMED_ANEW_AFTER
    assert named(records, "E", "E", "F") == ["E", "F"]
