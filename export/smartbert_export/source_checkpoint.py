"""Step 1 of an export: open a checkpoint folder - model, labels, tokenizer, and the digest of its weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import nn

from smartbert.activations.ranges import ActivationRanges, read_ranges
from smartbert.backbones import FAMILIES
from smartbert.checkpoint_folder import REPORT_FILE, load_tokenizer
from smartbert.modeling import SmartBertForSequenceClassification
from smartbert.plain_classifier import is_plain
from smartbert_export.package_files import sha256_of
from smartbert_export.plain_adapter import load_plain
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.errors import ConfigError, ExportError
from smartbert_runtime.tokenizer import TokenizerSettings

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
# What SUMMARY.md quotes of a training report.
SUMMARIZED = {"base_model", "texts", "dev", "dev_full_depth", "settings"}


@dataclass(frozen=True, kw_only=True)
class SourceCheckpoint:
    """What an export needs of a checkpoint.

    training: its training report as JSON; empty when there is none.
    ranges: of its activations; None where it carries none.
    gates_left_out: the checkpoint has gates, `model` was opened without them.
    """

    model: SmartBertForSequenceClassification
    labels: tuple[str, ...]
    tokenizer_json: bytes
    pad_id: int
    type_ids: bool
    sha256: str
    training: dict[str, Any]
    ranges: ActivationRanges | None
    gates_left_out: bool

    def policy(self) -> Policy:
        """The checkpoint's own thresholds."""
        config = self.model.config
        return Policy(
            skip_threshold=config.skip_threshold,
            exit_threshold=config.exit_threshold,
            no_skip=not config.gates,
            no_exit=not config.early_exits,
        )

    def tokenizer_settings(self, max_length: int) -> TokenizerSettings:
        """For inputs of at most `max_length` tokens."""
        return TokenizerSettings(max_length=max_length, pad_id=self.pad_id, type_ids=self.type_ids)


def open_checkpoint(folder: Path, *, gates: bool = True) -> SourceCheckpoint:
    """Load a folder that smartbert-train or save_pretrained wrote, a plain classifier too; ExportError for others.

    gates: false leaves the gates out; the model then skips no layer.
    """
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise ExportError(f"{folder} is not a checkpoint: it has no {name}", hint="give smartbert-train's OUTPUT")
    try:
        family = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError) as err:
        raise ExportError(f"{folder / CONFIG_FILE} is not a model's config", hint="train again") from err
    plain = is_plain(str(family))
    if family != "smartbert" and not plain:
        raise ExportError(
            f"{folder} holds a {family!r} model, which cannot be exported",
            hint="give a checkpoint of smartbert-train, or a fine-tuned classifier: " + ", ".join(FAMILIES),
        )
    model = load_plain(folder) if plain else _load_model(folder)
    _check_finite(model)
    gates_left_out = bool(model.config.gates) and not gates
    if gates_left_out:
        model.config.gates, model.gates = False, nn.ModuleList()
    tokenizer = load_tokenizer(str(folder), vocab_size=int(model.config.backbone_config["vocab_size"]))
    if tokenizer.pad_token_id is None:
        raise ExportError(f"the tokenizer of {folder} has no padding token", hint="give it one and save it again")
    names = model.config.id2label or {}
    return SourceCheckpoint(
        model=model,
        labels=tuple(str(names[number]) for number in sorted(names)),
        tokenizer_json=tokenizer.backend_tokenizer.to_str(pretty=True).encode(),
        pad_id=int(tokenizer.pad_token_id),
        type_ids="token_type_ids" in tokenizer.model_input_names,
        sha256=sha256_of(folder / WEIGHTS_FILE, folder / CONFIG_FILE),
        training=_read_report(folder / REPORT_FILE),
        ranges=_read_ranges(folder),
        gates_left_out=gates_left_out,
    )


def _read_ranges(folder: Path) -> ActivationRanges | None:
    try:
        return read_ranges(folder)
    except ConfigError as err:
        raise ExportError(str(err), hint=err.hint) from err


def _read_report(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(report, dict) or not set(report) >= SUMMARIZED:
            raise ValueError("it lacks what smartbert-train writes")
        return report
    except ValueError as err:
        raise ExportError(f"{file} is not a training report: {err}", hint="remove it, or train again") from err


def _load_model(folder: Path) -> SmartBertForSequenceClassification:
    try:
        model, info = SmartBertForSequenceClassification.from_pretrained(
            folder, use_safetensors=True, output_loading_info=True, local_files_only=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as err:
        raise ExportError(
            f"{folder} cannot be loaded: {str(err).strip().splitlines()[0]}",
            hint="train again, or copy it whole",
        ) from err
    if info["missing_keys"]:
        raise ExportError(
            f"{folder / WEIGHTS_FILE} lacks {len(info['missing_keys'])} weights, such as {min(info['missing_keys'])}",
            hint="the checkpoint is damaged: train again, or copy it whole",
        )
    return cast(SmartBertForSequenceClassification, model.float().eval())


def _check_finite(model: nn.Module) -> None:
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ExportError(f"the weight {name} holds NaN or infinite values", hint="train again, with a lower rate")
