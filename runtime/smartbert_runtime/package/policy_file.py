"""policy.json: the package's named policies; the only file of the folder that changes after the export."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.errors import ConfigError, IntegrityError, ManifestError
from smartbert_runtime.package.decode import decode

POLICY_SCHEMA_VERSION = "1.0"


@dataclass(frozen=True, kw_only=True)
class PolicyFile:
    """policy.json: named presets for each variant; carries its own digest, because it may change after the export."""

    schema_version: str
    variants: dict[str, dict[str, Policy]]
    sha256: str = ""
    extra: dict[str, object] = field(default_factory=dict)

    def sealed(self) -> PolicyFile:
        """The same file with its digest filled in."""
        return replace(self, sha256=_digest(asdict(self)))

    def preset(self, variant: str, name: str) -> Policy:
        """The policy called `name` for this variant; ConfigError lists those that exist."""
        presets = self.variants.get(variant, {})
        if name not in presets:
            raise ConfigError(
                f"policy.json has no preset {name!r} for {variant}",
                hint="it has: " + (", ".join(presets) or "none for this variant"),
            )
        return presets[name]


def _digest(parsed: Mapping[str, object]) -> str:
    """sha256 of the file's JSON with an empty digest, independent of white space and of the order of keys."""
    canonical = json.dumps({**parsed, "sha256": ""}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def parse_policy_file(text: str) -> PolicyFile:
    """PolicyFile from JSON text; IntegrityError when its digest does not match."""
    try:
        parsed = json.loads(text)
    except ValueError as err:
        raise ManifestError(f"policy.json is not JSON: {err}", hint="export again") from err
    version = parsed.get("schema_version") if isinstance(parsed, dict) else POLICY_SCHEMA_VERSION
    if version != POLICY_SCHEMA_VERSION:
        raise ManifestError(
            f"policy.json has schema version {version}, this runtime reads {POLICY_SCHEMA_VERSION}",
            hint="export again with this version",
        )
    try:
        policies = decode(PolicyFile, parsed, where="policy")
    except ConfigError as err:
        raise ManifestError(f"policy.json: {err}", hint="export again") from err
    if policies.sha256 != _digest(parsed):
        raise IntegrityError(
            "policy.json was changed by hand or is damaged",
            hint="export again; for one run give --exit-threshold and --skip-threshold instead",
        )
    return policies
