"""The document under the name that `watch` imports."""

from quotestream.document import Document

__all__ = ["Document"]
