"""What the tests of the engines share: the policies to sweep, the torch model run as a batch, comparing traces."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from smartbert.modeling import SmartBertForSequenceClassification
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.engine.batch import run_batch
from smartbert_runtime.engine.parts import Outcome
from smartbert_runtime.tokenizer import Tokens
from smartbert_runtime.trace import Trace
from tests.conftest import LABELS, LAYERS
from tests.runtime.engine.torch_parts import TorchParts

# Both sides run the same torch kernels; only the batch's shape differs.
LOGIT_TOLERANCE = 2e-5

POLICY = Policy(exit_threshold=0.5)
NO_SKIP = Policy(exit_threshold=0.5, no_skip=True)
NO_EXIT = Policy(exit_threshold=0.5, no_exit=True)
FULL_DEPTH = Policy(no_skip=True, no_exit=True)
EAGER = Policy(exit_threshold=0.8, skip_threshold=0.2)
# What each engine is compared with the torch oracle on.
POLICIES = [
    POLICY,
    NO_SKIP,
    NO_EXIT,
    FULL_DEPTH,
    EAGER,
    Policy(rule="max-probability", exit_threshold=0.5),
    Policy(rule="patience", patience=1),
    Policy(rule="patience", patience=1, no_skip=True),
    Policy(rule="confident-patience", patience=2, exit_threshold=0.7),
    Policy(exit_thresholds=(0.0, 0.3, 0.6, 0.0)),
    Policy(exit_threshold=0.5, max_layers=1),
    Policy(exit_threshold=0.5, max_layers=2, no_skip=True),
    Policy(max_layers=2, no_exit=True),
    Policy(rule="patience", patience=1, max_layers=3),
]


def run(parts: TorchParts, tokens: Tokens, policy: Policy, *, fused: bool = False) -> list[Outcome]:
    """The tiny model's outcomes by the batch engine."""
    return run_batch(parts, tokens, policy, layers=LAYERS, classes=len(LABELS), fused=fused)


def traces(
    model: SmartBertForSequenceClassification, tokens: Tokens, policy: Policy, *, fused: bool = False
) -> list[Trace]:
    """Its traces."""
    return [outcome.trace for outcome in run(TorchParts(model), tokens, policy, fused=fused)]


def assert_same(found: Sequence[Trace], expected: Sequence[Trace]) -> None:
    """Equal decisions, and the same numbers evaluated, up to rounding."""
    assert [trace.decisions() for trace in found] == [trace.decisions() for trace in expected]
    for one, other in zip(found, expected, strict=True):
        for name in ("logits_c", "skip_logit_l", "uncertainty_l"):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=0, atol=LOGIT_TOLERANCE)
