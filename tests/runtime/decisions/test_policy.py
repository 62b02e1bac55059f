"""policy: skipping and exiting against values worked out by hand; what a Policy and policy.json refuse."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from smartbert_runtime.decisions.policy import Policy, logit, should_skip
from smartbert_runtime.errors import ConfigError, IntegrityError, ManifestError
from smartbert_runtime.package.decode import encode
from smartbert_runtime.package.policy_file import PolicyFile, parse_policy_file

LN2, LN3, LN5 = math.log(2.0), math.log(3.0), math.log(5.0)


def floats(*values: object) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)


def policy_file() -> PolicyFile:
    presets = {"default": Policy(exit_threshold=0.3), "full-depth": Policy().at_full_depth()}
    return PolicyFile(schema_version="1.0", variants={"separate-fp32": presets}).sealed()


def edited(**changes: object) -> str:
    """policy.json with top-level keys replaced, its digest left as it was."""
    return json.dumps({**json.loads(encode(policy_file())), **changes})


def test_logit_of_probabilities_and_of_both_ends() -> None:
    assert logit(0.5) == 0.0
    assert logit(0.75) == pytest.approx(LN3)
    assert (logit(0.0), logit(1.0)) == (-math.inf, math.inf)


def test_skip_when_the_probability_reaches_the_threshold() -> None:
    assert should_skip(floats(-3.0, 0.0, 0.4), 0.5).tolist() == [False, True, True]
    assert should_skip(floats(LN3 - 1e-4, LN3 + 1e-4), 0.75).tolist() == [False, True]


def test_skip_tells_saturated_gates_apart() -> None:
    # Both sigmoids are exactly 1.0 in float32; their logits are not the same.
    assert should_skip(floats(20.0, 40.0), 1.0 - 1e-12).tolist() == [False, True]


def test_skip_threshold_zero_always_skips_and_one_never_does() -> None:
    logits_b = floats(-1e30, 0.0, 1e30)
    assert should_skip(logits_b, 0.0).tolist() == [True, True, True]
    assert should_skip(logits_b, 1.0).tolist() == [False, False, False]


def test_a_policy_asks_with_its_own_thresholds() -> None:
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
def test_policy_refuses_what_cannot_be_meant(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Policy(**settings)


def test_policy_accepts_both_ends_of_its_ranges() -> None:
    policy = Policy(skip_threshold=0.0, exit_threshold=1.0, max_layers=1)
    assert (policy.skip_threshold, policy.exit_threshold, policy.max_layers) == (0.0, 1.0, 1)


def test_at_full_depth_runs_everything_and_keeps_the_thresholds() -> None:
    full = Policy(skip_threshold=0.6, exit_threshold=0.3, max_layers=2, deadline_ms=5.0).at_full_depth()
    assert full == Policy(skip_threshold=0.6, exit_threshold=0.3, no_skip=True, no_exit=True, max_layers=None)


def test_policy_file_survives_writing_and_reading() -> None:
    assert parse_policy_file(encode(policy_file())) == policy_file()


def test_policy_digest_is_that_of_the_text_without_it() -> None:
    parsed = json.loads(encode(policy_file()))
    canonical = json.dumps({**parsed, "sha256": ""}, sort_keys=True, separators=(",", ":"))
    assert policy_file().sha256 == hashlib.sha256(canonical.encode()).hexdigest()


def test_policy_digest_does_not_depend_on_how_the_json_is_spelt() -> None:
    parsed = json.loads(encode(policy_file()))
    respelt = json.dumps(dict(reversed(parsed.items())), indent=7)
    assert parse_policy_file(respelt) == policy_file()


def test_a_threshold_changed_by_hand_is_found() -> None:
    text = encode(policy_file())
    with pytest.raises(IntegrityError, match=r"policy\.json was changed by hand") as caught:
        parse_policy_file(text.replace('"exit_threshold": 0.3', '"exit_threshold": 0.4'))
    assert "--exit-threshold" in caught.value.hint


def test_an_unsealed_or_resealed_wrongly_policy_file_is_found() -> None:
    for digest in ("", "0" * 64):
        with pytest.raises(IntegrityError, match="damaged"):
            parse_policy_file(encode(replace(policy_file(), sha256=digest)))


def test_own_additions_under_extra_are_kept_and_sealed() -> None:
    own = replace(policy_file(), extra={"chosen by": "me"}).sealed()
    assert own.sha256 != policy_file().sha256
    assert parse_policy_file(encode(own)).extra == {"chosen by": "me"}


def test_presets_are_found_by_variant_and_name() -> None:
    assert policy_file().preset("separate-fp32", "default").exit_threshold == 0.3
    assert policy_file().preset("separate-fp32", "full-depth").no_exit


def test_an_unknown_preset_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match="no preset 'fast' for separate-fp32") as caught:
        policy_file().preset("separate-fp32", "fast")
    assert caught.value.hint == "it has: default, full-depth"
    with pytest.raises(ConfigError) as caught:
        policy_file().preset("separate-int8", "default")
    assert caught.value.hint == "it has: none for this variant"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "policy.json is not JSON"),
        ("[]", "policy must be a JSON object, not list"),
        (edited(thresholds=[0.5]), "policy has an unknown key 'thresholds'"),
        (edited(variants={"separate-fp32": {"default": {"exit": 0.5}}}), r"variants\.separate-fp32\.default.*'exit'"),
        (edited(schema_version="2.0"), "schema version 2.0, this runtime reads 1.0"),
    ],
)
def test_a_policy_file_that_does_not_fit_is_a_manifest_error(text: str, words: str) -> None:
    with pytest.raises(ManifestError, match=words):
        parse_policy_file(text)


def test_a_newer_policy_file_is_refused_for_its_version_and_not_for_its_new_keys() -> None:
    with pytest.raises(ManifestError, match=r"schema version 2\.0"):
        parse_policy_file(edited(schema_version="2.0", rules=["patience"]))
