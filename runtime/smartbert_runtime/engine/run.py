"""Which engine runs a batch: the single graph, the single-text fast path, or the batch engine."""

from __future__ import annotations

from dataclasses import replace

from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.engine.batch import run_batch
from smartbert_runtime.engine.parts import Outcome, Parts
from smartbert_runtime.engine.single_graph import check_single_graph_policy, run_single_graph
from smartbert_runtime.engine.stopwatch import Stopwatch
from smartbert_runtime.engine.text import run_text
from smartbert_runtime.errors import ConfigError
from smartbert_runtime.package.manifest import FUSED, SINGLE
from smartbert_runtime.sessions.sessions import Sessions
from smartbert_runtime.tokenizer import Tokens


def run_layout(
    sessions: Sessions,
    tokens: Tokens,
    policy: Policy,
    *,
    since: float | None = None,
    stopwatch: Stopwatch | None = None,
) -> list[Outcome]:
    """Classify one batch with the variant that `sessions` holds; outcome i belongs to row i.

    since: when the batch's deadline began to run, by `time.perf_counter`; default: now.
    stopwatch: records every call of a part.
    """
    if sessions.variant.layout == SINGLE:
        return run_single_graph(_timed(sessions, stopwatch), tokens, policy)
    manifest = sessions.package.manifest
    # Gates and heads that the model lacks cannot be evaluated. The package's own policies exclude them already, and
    # then nothing is copied.
    no_skip = policy.no_skip or not manifest.model.gates
    no_exit = policy.no_exit or not manifest.model.early_exits
    if (no_skip, no_exit) != (policy.no_skip, policy.no_exit):
        policy = replace(policy, no_skip=no_skip, no_exit=no_exit)
    layers, fused = manifest.model.layers, sessions.variant.layout == FUSED
    if len(tokens.truncated) == 1:
        return [run_text(_timed(sessions, stopwatch), tokens, policy, layers=layers, fused=fused, since=since)]
    return run_batch(
        _timed(sessions, stopwatch),
        tokens,
        policy,
        layers=layers,
        classes=len(manifest.labels),
        fused=fused,
        since=since,
    )


def _timed(sessions: Sessions, stopwatch: Stopwatch | None) -> Parts:
    return sessions if stopwatch is None else stopwatch.wrap(sessions)


def check_runnable(sessions: Sessions, policy: Policy) -> None:
    """ConfigError for a policy that the variant's graphs cannot follow."""
    if sessions.variant.layout == SINGLE:
        check_single_graph_policy(policy)
    model = sessions.package.manifest.model
    if (policy.max_layers, policy.deadline_ms) != (None, None) and not model.early_exits:
        raise ConfigError(
            "this model has no head but the last: it cannot answer after fewer layers",
            hint="leave out max_layers and deadline_ms, or train exit heads with smartbert-train",
        )
    if policy.exit_thresholds is not None and len(policy.exit_thresholds) != model.layers:
        raise ConfigError(
            f"{len(policy.exit_thresholds)} exit thresholds for {model.layers} layers", hint="give one for each layer"
        )
