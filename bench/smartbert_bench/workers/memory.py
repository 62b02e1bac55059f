"""How much memory this process holds, as Linux reports it."""

from __future__ import annotations

from pathlib import Path

from smartbert_bench.workers.protocol import MemoryReply

_STATUS = Path("/proc/self/status")


def process_memory() -> MemoryReply:
    """Resident memory of this process now and its maximum so far; None for both where there is no /proc."""
    if not _STATUS.exists():
        return MemoryReply(resident_mb=None, peak_mb=None)
    fields = dict(line.split(":", 1) for line in _STATUS.read_text(encoding="ascii").splitlines())
    return MemoryReply(resident_mb=_mb(fields["VmRSS"]), peak_mb=_mb(fields["VmHWM"]))


def _mb(field: str) -> float:
    """`  12345 kB`, where k is 1024."""
    return int(field.split()[0]) * 1024 / 1e6
