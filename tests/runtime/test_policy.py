"""policy: entropy, skipping and exiting against values worked out by hand; what a Policy and policy.json refuse."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from smartbert_runtime.errors import ConfigError, IntegrityError, ManifestError
from smartbert_runtime.policy import (
    Policy,
    PolicyFile,
    logit,
    normalised_entropy,
    parse_policy_file,
    should_exit,
    should_skip,
    softmax,
)
from smartbert_runtime.schema import encode

LN2, LN3, LN5 = math.log(2.0), math.log(3.0), math.log(5.0)


def floats(*values: object) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)


def policy_file() -> PolicyFile:
    presets = {"default": Policy(exit_threshold=0.3), "full-depth": Policy().without_shortcuts()}
    return PolicyFile(schema_version="1.0", variants={"separate-fp32": presets}).sealed()


def edited(**changes: object) -> str:
    """policy.json with top-level keys replaced, its digest left as it was."""
    return json.dumps({**json.loads(encode(policy_file())), **changes})


def test_softmax_of_log_odds_is_the_odds() -> None:
    assert softmax(floats([0.0, LN3], [0.0, 0.0])) == pytest.approx(np.array([[0.25, 0.75], [0.5, 0.5]]), abs=1e-7)


def test_entropy_is_divided_by_its_maximum_for_the_number_of_classes() -> None:
    # 1/4, 3/4: (1/4 ln 4 + 3/4 ln 4/3) / ln 2 = 0.562335 / 0.693147
    assert normalised_entropy(floats([0.0, LN3])) == pytest.approx([0.811278], abs=1e-6)
    # 1/8, 2/8, 5/8: (1/8 ln 8 + 1/4 ln 4 + 5/8 ln 8/5) / ln 3 = 0.900256 / 1.098612
    assert normalised_entropy(floats([0.0, LN2, LN5])) == pytest.approx([0.819449], abs=1e-6)


def test_entropy_does_not_depend_on_a_shift_of_the_logits() -> None:
    shifted = floats([100.0, 100.0 + LN3], [-100.0, -100.0 + LN3])
    assert normalised_entropy(shifted) == pytest.approx([0.811278, 0.811278], abs=1e-5)


def test_saturated_logits_give_certainty_and_no_nan() -> None:
    entropy_b = normalised_entropy(floats([1e4, -1e4], [-3e38, 3e38], [0.0, 800.0]))
    assert entropy_b.tolist() == [0.0, 0.0, 0.0]
    assert softmax(floats([1e4, -1e4])).tolist() == [[1.0, 0.0]]


def test_certainty_is_zero_and_not_minus_zero() -> None:
    # Shown to people with three digits: -0.0 reads "-0.000".
    assert not np.signbit(normalised_entropy(floats([1e4, -1e4]))).any()


@pytest.mark.parametrize("classes", range(2, 14))
def test_uniform_entropy_is_one_and_not_above(classes: int) -> None:
    entropy = float(normalised_entropy(np.zeros((1, classes), dtype=np.float32))[0])
    assert entropy == pytest.approx(1.0, abs=1e-12)
    assert entropy <= 1.0


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


def test_exit_only_strictly_below_the_threshold() -> None:
    assert should_exit(floats([4.0, -4.0], [0.1, 0.0]), 0.2).tolist() == [True, False]
    entropy = float(normalised_entropy(floats([0.0, LN3]))[0])
    assert should_exit(floats([0.0, LN3]), entropy).tolist() == [False]
    assert should_exit(floats([0.0, LN3]), math.nextafter(entropy, 1.0)).tolist() == [True]


def test_exit_threshold_zero_never_exits_and_one_exits_unless_uniform() -> None:
    logits_bc = floats([1e4, -1e4], [0.01, 0.0], [0.0, 0.0])
    assert should_exit(logits_bc, 0.0).tolist() == [False, False, False]
    assert should_exit(logits_bc, 1.0).tolist() == [True, True, False]


def test_a_policy_asks_with_its_own_thresholds() -> None:
    policy = Policy(skip_threshold=0.75, exit_threshold=0.82)
    assert policy.skips(floats(1.0, 1.2)).tolist() == [False, True]
    assert policy.exits(floats([0.0, LN3], [0.0, 0.5])).tolist() == [True, False]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rule": "patience"}, "unknown exit rule 'patience'"),
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


def test_without_shortcuts_runs_everything_and_keeps_the_thresholds() -> None:
    full = Policy(skip_threshold=0.6, exit_threshold=0.3, max_layers=2).without_shortcuts()
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
