"""Memory that was freed, given back to the system: glibc keeps it, in holes that later weights do not fit into."""

from __future__ import annotations

import ctypes
import sys


def give_back() -> None:
    """Give all free pages back now; where the C library is not glibc, nothing."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
