"""When to skip a layer and when to answer: pure functions over arrays, and the settings that steer them.

Shape letters: b batch, c classes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from smartbert_runtime.errors import ConfigError, IntegrityError, ManifestError
from smartbert_runtime.schema import decode

POLICY_SCHEMA_VERSION = "1.0"


def softmax(logits_bc: NDArray[np.float32]) -> NDArray[np.float64]:
    """Class probabilities, in double precision, so that every side that decides decides alike."""
    shifted = logits_bc.astype(np.float64) - logits_bc.max(axis=-1, keepdims=True)
    exponentials = np.exp(shifted)
    probabilities: NDArray[np.float64] = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probabilities


def normalised_entropy(logits_bc: NDArray[np.float32]) -> NDArray[np.float64]:
    """Uncertainty of each row, from 0 (sure) to 1 (uniform): natural-log entropy divided by ln c.

    The SmartBERT paper thresholds plain entropy, whose maximum is ln c; divide its thresholds by ln c (0.693 for
    two classes) to use them here.
    """
    probabilities_bc = softmax(logits_bc)
    entropy_b = -(probabilities_bc * np.log(np.maximum(probabilities_bc, 1e-300))).sum(axis=-1)
    # Rounded, so that rounding errors make no uniform row a little less or more than 1, and no sure row -0.0.
    normalised: NDArray[np.float64] = np.round(entropy_b / math.log(logits_bc.shape[-1]), 12).clip(0.0, 1.0) + 0.0
    return normalised


def logit(probability: float) -> float:
    """The value whose sigmoid is `probability`; 0 -> -inf, 1 -> +inf."""
    if probability <= 0.0:
        return -math.inf
    if probability >= 1.0:
        return math.inf
    return math.log(probability / (1.0 - probability))


def sigmoid(value: float) -> float:
    """The probability whose logit is `value`, without overflow."""
    return 0.5 * (1.0 + math.tanh(0.5 * value))


def should_skip(skip_logit_b: NDArray[np.floating], threshold: float) -> NDArray[np.bool_]:
    """Rows whose gate says that the layer can be left out: sigmoid(skip_logit) >= threshold.

    Compared as logits, because a sigmoid saturates to exactly 1.0 in float32: [-3.0, 0.4] at 0.5 -> [False, True].
    """
    skip: NDArray[np.bool_] = skip_logit_b.astype(np.float64) >= logit(threshold)
    return skip


def should_exit(logits_bc: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    """Rows certain enough to answer here (SmartBERT, inference rule): normalised entropy strictly below threshold.

    Logits [[4.0, -4.0], [0.1, 0.0]] at 0.2 -> [True, False].
    """
    exits: NDArray[np.bool_] = normalised_entropy(logits_bc) < threshold
    return exits


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How one text's way through the layers is decided.

    skip_threshold: a layer is skipped when its gate's skip probability reaches it (0 to 1).
    exit_threshold: an exit head answers when its normalised entropy is below it (0 to 1).
    no_skip, no_exit: never skip, never exit early; booleans, because no threshold says "never" exactly.
    max_layers: after this many layers run, the last one's head answers; None for no limit.
    """

    rule: str = "entropy"
    skip_threshold: float = 0.5
    exit_threshold: float = 0.0
    no_skip: bool = False
    no_exit: bool = False
    max_layers: int | None = None

    def __post_init__(self) -> None:
        if self.rule != "entropy":
            raise ConfigError(f"unknown exit rule {self.rule!r}", hint="known rules: entropy")
        for name in ("skip_threshold", "exit_threshold"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ConfigError(f"{name} must be from 0 to 1, not {value}", hint="see smartbert-infer --help")
        if self.max_layers is not None and self.max_layers < 1:
            raise ConfigError(f"max_layers must be 1 or more, not {self.max_layers}", hint="change --max-layers")

    def skips(self, skip_logit_b: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Rows that leave the layer out."""
        return should_skip(skip_logit_b, self.skip_threshold)

    def exits(self, logits_bc: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Rows that answer now."""
        return should_exit(logits_bc, self.exit_threshold)

    def without_shortcuts(self) -> Policy:
        """The same policy with every layer run and only the last head asked."""
        return replace(self, no_skip=True, no_exit=True, max_layers=None)


@dataclass(frozen=True, kw_only=True)
class PolicyFile:
    """policy.json: named presets for each variant; carries its own digest, because calibration rewrites it."""

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
    """sha256 of the file's JSON with the digest left empty, whatever its spelling and whichever keys it has."""
    canonical = json.dumps({**parsed, "sha256": ""}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def parse_policy_file(text: str) -> PolicyFile:
    """PolicyFile from JSON text; IntegrityError when its digest does not fit."""
    try:
        parsed = json.loads(text)
    except ValueError as err:
        raise ManifestError(f"policy.json is not JSON: {err}", hint="export or calibrate again") from err
    version = parsed.get("schema_version") if isinstance(parsed, dict) else POLICY_SCHEMA_VERSION
    if version != POLICY_SCHEMA_VERSION:
        raise ManifestError(
            f"policy.json has schema version {version}, this runtime reads {POLICY_SCHEMA_VERSION}",
            hint="calibrate again with this version",
        )
    try:
        policies = decode(PolicyFile, parsed, where="policy")
    except ConfigError as err:
        raise ManifestError(f"policy.json: {err}", hint="export or calibrate again") from err
    if policies.sha256 != _digest(parsed):
        raise IntegrityError(
            "policy.json was changed by hand or is damaged",
            hint="export again; for one run give --exit-threshold and --skip-threshold instead",
        )
    return policies
