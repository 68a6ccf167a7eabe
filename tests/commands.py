"""Every command of the protocol, derived from its type, so that a new one is tested as well."""

from typing import Any, get_args

from msgspec.structs import fields

from server.quotes.messages import Command

COMMANDS = {str(each.__struct_config__.tag): each for each in get_args(Command)}
"""The type of each command, by its name on the wire."""

VALUES: dict[str, Any] = {
    "symbols": ["AAPL", "BRK.B"],
    "token": "x.y.z",
    "interval": "1s",
    "id": "a" * 64,
}
"""A good value for each field that a command may have. A field that is missing here is a KeyError."""

FIELDS = sorted({field.name for each in COMMANDS.values() for field in fields(each)})
"""The names of all fields of all commands."""


def example(action: str) -> dict[str, Any]:
    """Return a good command of this name, with a value in each of its fields."""
    return {"action": action} | {each.name: VALUES[each.name] for each in fields(COMMANDS[action])}
