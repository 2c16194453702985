"""Former name of `hand1000.core.errors`, which the code beside models registered by version 0.1.0 imports."""

from hand1000.core.errors import Hand1000Error

__all__ = ["Hand1000Error"]
