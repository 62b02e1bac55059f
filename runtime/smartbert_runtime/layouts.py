"""Which layouts there are, and how the graphs of each are run."""

from __future__ import annotations

from smartbert_runtime.engine import Outcome, run_batch
from smartbert_runtime.policy import Policy
from smartbert_runtime.sessions import Sessions
from smartbert_runtime.single import check_policy, run_rows
from smartbert_runtime.tokenizer import Tokens

SEPARATE, FUSED, SINGLE = "separate", "fused", "single"


def run_layout(sessions: Sessions, tokens: Tokens, policy: Policy) -> list[Outcome]:
    """Classify one batch with the variant that `sessions` holds; outcome i belongs to row i."""
    if sessions.variant.layout == SINGLE:
        return run_rows(sessions, tokens, policy)
    manifest = sessions.package.manifest
    return run_batch(
        sessions,
        tokens,
        policy,
        layers=manifest.model.layers,
        classes=len(manifest.labels),
        fused=sessions.variant.layout == FUSED,
    )


def check_runnable(sessions: Sessions, policy: Policy) -> None:
    """ConfigError for a policy that the variant's graphs cannot follow."""
    if sessions.variant.layout == SINGLE:
        check_policy(policy)
