"""policy: skipping and exiting against values worked out by hand, and settings that are refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.decisions.rules import logit, should_skip
from smartbert_runtime.errors import ConfigError

LN2, LN3, LN5 = math.log(2.0), math.log(3.0), math.log(5.0)


def floats(*values: object) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)


def test_logit_and_its_ends() -> None:
    assert logit(0.5) == 0.0
    assert logit(0.75) == pytest.approx(LN3)
    assert (logit(0.0), logit(1.0)) == (-math.inf, math.inf)


def test_skip_at_threshold() -> None:
    assert should_skip(floats(-3.0, 0.0, 0.4), 0.5).tolist() == [False, True, True]
    assert should_skip(floats(LN3 - 1e-4, LN3 + 1e-4), 0.75).tolist() == [False, True]


def test_skip_with_saturated_gates() -> None:
    # Both sigmoids are exactly 1.0 in float32; their logits are not the same.
    assert should_skip(floats(20.0, 40.0), 1.0 - 1e-12).tolist() == [False, True]


def test_skip_threshold_ends() -> None:
    logits_b = floats(-1e30, 0.0, 1e30)
    assert should_skip(logits_b, 0.0).tolist() == [True, True, True]
    assert should_skip(logits_b, 1.0).tolist() == [False, False, False]


def test_policy_uses_its_thresholds() -> None:
    policy = Policy(skip_threshold=0.75, exit_threshold=0.82)
    assert policy.skips(floats(1.0, 1.2)).tolist() == [False, True]
    assert policy.exits(floats([0.0, LN3], [0.0, 0.5])).tolist() == [True, False]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rule": "patients"}, "unknown exit rule 'patients'"),
        ({"exit_thresholds": (0.5, 1.5)}, "each of exit_thresholds must be from 0 to 1, not 1.5"),
        ({"patience": 0}, "patience must be 1 or more, not 0"),
        ({"deadline_ms": 0.0}, "deadline_ms must be more than 0, not 0.0"),
        ({"deadline_ms": math.nan}, "deadline_ms must be more than 0, not nan"),
        ({"skip_threshold": -0.01}, "skip_threshold must be from 0 to 1, not -0.01"),
        ({"skip_threshold": 1.01}, "skip_threshold must be from 0 to 1, not 1.01"),
        ({"exit_threshold": 1.01}, "exit_threshold must be from 0 to 1, not 1.01"),
        ({"exit_threshold": math.nan}, "exit_threshold must be from 0 to 1, not nan"),
        ({"max_layers": 0}, "max_layers must be 1 or more, not 0"),
    ],
)
def test_invalid_settings_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Policy(**settings)


def test_range_ends_are_accepted() -> None:
    policy = Policy(skip_threshold=0.0, exit_threshold=1.0, max_layers=1)
    assert (policy.skip_threshold, policy.exit_threshold, policy.max_layers) == (0.0, 1.0, 1)


def test_at_full_depth() -> None:
    full = Policy(skip_threshold=0.6, exit_threshold=0.3, max_layers=2, deadline_ms=5.0).at_full_depth()
    assert full == Policy(skip_threshold=0.6, exit_threshold=0.3, no_skip=True, no_exit=True, max_layers=None)
