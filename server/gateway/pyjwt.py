"""Imports PyJWT, and cryptography with it only for a public key. That is 10 MB for each process."""

import sys
from importlib import import_module
from types import ModuleType


def load_pyjwt(*, public_keys: bool) -> ModuleType:
    """Return PyJWT. If it will not see `public_keys`, it need not know their algorithms."""
    loaded = sys.modules.get("jwt")
    if loaded is not None and (loaded.algorithms.has_crypto or not public_keys):
        return loaded
    for name in [name for name in sys.modules if name == "jwt" or name.startswith("jwt.")]:
        del sys.modules[name]
    if public_keys or "cryptography" in sys.modules:
        return import_module("jwt")
    # PyJWT goes on without a package that cannot be imported, as one that is None here.
    sys.modules["cryptography"] = None  # type: ignore[assignment] # Python's own way to say so
    try:
        return import_module("jwt")
    finally:
        del sys.modules["cryptography"]
