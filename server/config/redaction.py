"""Hides tokens, secrets and passwords in text for people: log lines, errors, tracebacks.

The server's own messages quote no secret. This is for messages of drivers and libraries, and for
exceptions that contain a request. The module owns the process's list of values to hide.
"""

import json
import re
from urllib.parse import quote

HIDDEN = "…"
"""Takes the place of each hidden text."""

MIN_HIDDEN = 8
"""Characters. A shorter value, such as a password `on`, could be part of an ordinary word. It is hidden
only where its form shows a secret (below).
"""

_B64 = "[A-Za-z0-9_-]"

# Each pattern takes linear time: clients choose part of what is logged.
_FORMS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*-----|\Z)", re.DOTALL),
        HIDDEN,
    ),
    # A JWT: its first part is base64 of `{"` and so on (RFC 7515 §7.1).
    (
        re.compile(rf"(?<!{_B64})(?={_B64}*?ey[A-Z]){_B64}{{16,}}+\.{_B64}{{4,}}+(?:\.{_B64}*+)?"),
        HIDDEN,
    ),
    (re.compile(r"\b(bearer(?:[ :]+|\.))[^\s'\",<]+", re.IGNORECASE), rf"\1{HIDDEN}"),
    # Up to the last `@`: an operator may forget to escape one in a password.
    (re.compile(r"(//[^/@:\s]{0,100}:)[^\s\"]{0,100}@"), rf"\1{HIDDEN}@"),
    (
        re.compile(
            r"\b(\w{0,40}(?:token|password|passwd|secret|api_?key)=)"
            r"(?:'[^']*'|\"[^\"]*\"|[^&\s'\"]+)",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
)

_values: set[str] = set()
_pattern: re.Pattern[str] | None = None


def hide(*values: str) -> None:
    """Have `redact` hide `values` too, as they are and as they appear in JSON, Python and URLs."""
    global _pattern  # noqa: PLW0603 (one list for the process, as there is one log)
    for value in values:
        if len(value) >= MIN_HIDDEN:
            escaped = json.dumps(value)[1:-1], repr(value)[1:-1]
            _values.update((value, *escaped, quote(value, safe="", errors="replace")))
    if _values:
        longest_first = sorted(_values, key=len, reverse=True)
        _pattern = re.compile("|".join(re.escape(value) for value in longest_first))


def redact(text: str) -> str:
    """Return `text` with HIDDEN in place of known secrets and of texts in the form of a secret."""
    if _pattern is not None:
        text = _pattern.sub(HIDDEN, text)
    for form, replacement in _FORMS:
        text = form.sub(replacement, text)
    return text
