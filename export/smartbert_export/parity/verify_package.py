"""Step 7 of an export: every variant of the written package against PyTorch's answers."""

from __future__ import annotations

from pathlib import Path

from smartbert_export.freed_memory import return_freed_memory
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.package.open import open_package
from smartbert_runtime.parity.golden import Golden
from smartbert_runtime.parity.verify import VerifyReport, require_parity, verify
from smartbert_runtime.reporting import SILENT, Reporter
from smartbert_runtime.sessions.sessions import Sessions


def verify_package(
    folder: Path, golden: Golden, policy: Policy, *, reporter: Reporter = SILENT
) -> tuple[VerifyReport, ...]:
    """A report for each variant; ParityError at the first part or decision that differs."""
    package = open_package(folder)
    reports = []
    for variant in package.manifest.variants:
        return_freed_memory()  # the weights of the previous variant's sessions
        sessions = Sessions(package, variant, arena=False)
        reports.append(require_parity(verify(sessions, golden, policy, oracle="PyTorch", reporter=reporter)))
    return tuple(reports)
