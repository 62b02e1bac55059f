"""The bench's memory figures for studies: an error where the system has none, and a peak that can be reset (Linux)."""

from __future__ import annotations

from pathlib import Path

from smartbert_bench.workers.memory import process_memory
from smartbert_runtime.errors import InputError

_RESET = Path("/proc/self/clear_refs")


def resident_mb() -> float:
    """Resident memory now, in MB (1e6 bytes); InputError on other systems."""
    return _known(process_memory().resident_mb)


def peak_mb() -> float:
    """Maximum resident memory since the start or the last `reset_peak`, in MB; InputError on other systems."""
    return _known(process_memory().peak_mb)


def reset_peak() -> None:
    """Restart the measurement of the maximum; InputError on other systems."""
    if not _RESET.exists():
        _known(None)
    _RESET.write_text("5", encoding="ascii")


def _known(mb: float | None) -> float:
    if mb is None:
        raise InputError("memory is read from /proc, which only Linux has", hint="run this on Linux")
    return mb
