"""How much memory this process holds, as Linux tells it."""

from __future__ import annotations

from pathlib import Path

from smartbert_bench.workers.protocol import Weight

_STATUS = Path("/proc/self/status")


def weigh() -> Weight:
    """Resident memory of this process, now and at its highest; None twice where there is no /proc."""
    if not _STATUS.exists():
        return Weight(resident_mb=None, peak_mb=None)
    fields = dict(line.split(":", 1) for line in _STATUS.read_text(encoding="ascii").splitlines())
    return Weight(resident_mb=_mb(fields["VmRSS"]), peak_mb=_mb(fields["VmHWM"]))


def _mb(field: str) -> float:
    """`  12345 kB`, whose k is 1024."""
    return int(field.split()[0]) * 1024 / 1e6
