"""policy_file: what policy.json holds, its digest, and what is refused."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest

from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.errors import ConfigError, IntegrityError, ManifestError
from smartbert_runtime.package.decode import encode
from smartbert_runtime.package.policy_file import PolicyFile, parse_policy_file


def policy_file() -> PolicyFile:
    presets = {"default": Policy(exit_threshold=0.3), "full-depth": Policy().at_full_depth()}
    return PolicyFile(schema_version="1.0", variants={"separate-fp32": presets}).sealed()


def edited(**changes: object) -> str:
    """policy.json with top-level keys replaced, its digest left as it was."""
    return json.dumps({**json.loads(encode(policy_file())), **changes})


def test_policy_file_round_trip() -> None:
    assert parse_policy_file(encode(policy_file())) == policy_file()


def test_digest_excludes_itself() -> None:
    parsed = json.loads(encode(policy_file()))
    canonical = json.dumps({**parsed, "sha256": ""}, sort_keys=True, separators=(",", ":"))
    assert policy_file().sha256 == hashlib.sha256(canonical.encode()).hexdigest()


def test_digest_ignores_spelling() -> None:
    parsed = json.loads(encode(policy_file()))
    respelt = json.dumps(dict(reversed(parsed.items())), indent=7)
    assert parse_policy_file(respelt) == policy_file()


def test_edited_threshold_is_refused() -> None:
    text = encode(policy_file())
    with pytest.raises(IntegrityError, match=r"policy\.json was changed by hand") as caught:
        parse_policy_file(text.replace('"exit_threshold": 0.3', '"exit_threshold": 0.4'))
    assert "--exit-threshold" in caught.value.hint


def test_wrong_digest_is_refused() -> None:
    for digest in ("", "0" * 64):
        with pytest.raises(IntegrityError, match="damaged"):
            parse_policy_file(encode(replace(policy_file(), sha256=digest)))


def test_extra_is_kept_and_sealed() -> None:
    own = replace(policy_file(), extra={"chosen by": "me"}).sealed()
    assert own.sha256 != policy_file().sha256
    assert parse_policy_file(encode(own)).extra == {"chosen by": "me"}


def test_preset_lookup() -> None:
    assert policy_file().preset("separate-fp32", "default").exit_threshold == 0.3
    assert policy_file().preset("separate-fp32", "full-depth").no_exit


def test_unknown_preset_lists_known() -> None:
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
def test_malformed_policy_file(text: str, words: str) -> None:
    with pytest.raises(ManifestError, match=words):
        parse_policy_file(text)


def test_newer_version_is_refused() -> None:
    with pytest.raises(ManifestError, match=r"schema version 2\.0"):
        parse_policy_file(edited(schema_version="2.0", rules=["patience"]))
