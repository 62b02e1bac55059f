"""How the layout `single` runs: one graph that makes the decisions itself, one text a call.

Shape letters: c classes, l layers.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.engine.parts import Outcome, Parts
from smartbert_runtime.errors import ConfigError
from smartbert_runtime.package.part_names import MODEL
from smartbert_runtime.tokenizer import Tokens
from smartbert_runtime.trace import Trace

SKIP_THRESHOLD, EXIT_THRESHOLD = "skip_threshold", "exit_threshold"


def check_single_graph_policy(policy: Policy) -> None:
    """ConfigError for what the graph cannot decide: two thresholds are all that it takes."""
    beyond = [name for name in ("exit_thresholds", "max_layers", "deadline_ms") if getattr(policy, name) is not None]
    if policy.rule != "entropy":
        beyond.append(f"rule {policy.rule!r}")
    if beyond:
        raise ConfigError(
            f"the layout 'single' decides by entropy and gates only and knows no {', no '.join(beyond)}",
            hint="load the layout 'separate' or 'fused' (--layout) for it",
        )


def run_single_graph(parts: Parts, tokens: Tokens, policy: Policy) -> list[Outcome]:
    """Classify the rows one by one, each without its padding.

    A trace holds no skip logits and no entropies: the graph does not return them.
    """
    check_single_graph_policy(policy)
    started = time.perf_counter()
    # A skip logit never reaches that of probability 1, and no entropy is below 0: these thresholds mean never.
    thresholds = {
        SKIP_THRESHOLD: np.float32(1.0 if policy.no_skip else policy.skip_threshold),
        EXIT_THRESHOLD: np.float32(0.0 if policy.no_exit else policy.exit_threshold),
    }
    outcomes = []
    for row in range(len(tokens.truncated)):
        feeds = tokens.rows([row]).feeds() | {name: np.asarray(value) for name, value in thresholds.items()}
        logits_1c, exit_layer, run_l = parts.run(MODEL, feeds)
        trace = _trace(logits_1c[0], int(exit_layer), np.asarray(run_l))
        outcomes.append(Outcome(trace=trace, seconds=time.perf_counter() - started))
    return outcomes


def _trace(logits_c: NDArray[np.float32], exit_layer: int, run_l: NDArray[np.generic]) -> Trace:
    layers = np.arange(1, len(run_l) + 1)
    unknown_l = np.full(len(run_l), np.nan)
    return Trace(
        layers_run=tuple(layers[run_l == 1].tolist()),
        layers_skipped=tuple(layers[(run_l == 0) & (layers <= exit_layer)].tolist()),
        exit_layer=exit_layer,
        logits_c=logits_c,
        skip_logit_l=unknown_l,
        uncertainty_l=unknown_l,
    )
