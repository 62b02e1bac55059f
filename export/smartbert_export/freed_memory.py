"""Memory that was freed, returned to the system: glibc keeps it, in holes too small for later weights."""

from __future__ import annotations

import ctypes
import sys


def return_freed_memory() -> None:
    """Return all free pages now; does nothing where the C library is not glibc."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
