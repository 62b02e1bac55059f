"""Step 1 of an export: open a checkpoint folder - model, labels, tokenizer, and the digest of its weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from smartbert.activations.ranges import ActivationRanges, read_ranges
from smartbert.backbones import FAMILIES, family_of
from smartbert.checkpoint_folder import REPORT_FILE, load_tokenizer
from smartbert.modeling import SmartBertForSequenceClassification
from smartbert.plain_classifier import is_plain
from smartbert_export.package_files import sha256_of
from smartbert_export.plain_adapter import load_plain
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.errors import ConfigError, ExportError
from smartbert_runtime.tokenizer import TokenizerSettings

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
# Lists the files of weights that were saved in several.
INDEX_FILE = f"{WEIGHTS_FILE}.index.json"
HINT = "give smartbert-train's OUTPUT"
# What SUMMARY.md quotes of a training report.
SUMMARIZED = {"base_model", "texts", "dev", "dev_full_depth", "settings"}


@dataclass(frozen=True, kw_only=True)
class SourceCheckpoint:
    """What an export needs of a checkpoint.

    tokenizer: the checkpoint's own. own_logits: the answers of its own class, ids (b,s) -> logits (b,c).
    training: its training report as JSON; empty when there is none.
    ranges: of its activations; None where it carries none.
    gates_left_out: the checkpoint has gates, `model` was opened without them.
    text_pairs: whether it was trained on pairs of texts; None where its config does not say so.
    """

    model: SmartBertForSequenceClassification
    own_logits: Callable[..., Tensor]
    labels: tuple[str, ...]
    tokenizer: PreTrainedTokenizerFast
    tokenizer_json: bytes
    sha256: str
    training: dict[str, Any]
    ranges: ActivationRanges | None
    gates_left_out: bool
    text_pairs: bool | None

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
        return TokenizerSettings(
            max_length=max_length,
            pad_id=int(cast(int, self.tokenizer.pad_token_id)),
            type_ids="token_type_ids" in self.tokenizer.model_input_names,
            truncation_side=self.tokenizer.truncation_side,
            split_special_tokens=bool(self.tokenizer.split_special_tokens),
        )


def open_checkpoint(folder: Path, *, gates: bool = True) -> SourceCheckpoint:
    """Load a folder that smartbert-train or save_pretrained wrote, a plain classifier too; ExportError for others.

    gates: false leaves the gates out; the model then skips no layer.
    """
    if not (folder / CONFIG_FILE).is_file():
        raise ExportError(f"{folder} is not a checkpoint: it has no {CONFIG_FILE}", hint=HINT)
    weights = _weights_files(folder)
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        family, vocabulary = config.get("model_type"), config.get("backbone_config", config).get("vocab_size")
    except (ValueError, AttributeError) as err:
        raise ExportError(f"{folder / CONFIG_FILE} is not a model's config", hint="train again") from err
    plain = is_plain(str(family))
    if plain or family == "smartbert":
        try:
            family_of(config.get("backbone_config", config))
        except ConfigError as err:
            raise ExportError(f"{folder}: {err}", hint=err.hint) from err
    else:
        raise ExportError(
            f"{folder} holds a {family!r} model, which cannot be exported",
            hint="give a checkpoint of smartbert-train, or a fine-tuned classifier: " + ", ".join(FAMILIES),
        )
    tokenizer = load_tokenizer(str(folder), vocab_size=vocabulary)
    if tokenizer.pad_token_id is None:
        raise ExportError(f"the tokenizer of {folder} has no padding token", hint="give it one and save it again")
    if plain:
        classifier, model = load_plain(folder, tokenizer)
        own_logits: Callable[..., Tensor] = classifier.logits
    else:
        model = _load_model(folder)
        own_logits = _forward_logits(model)
    _check_finite(model)
    gates_left_out = bool(model.config.gates) and not gates
    if gates_left_out:
        model.config.gates, model.gates = False, nn.ModuleList()
    names = model.config.id2label or {}
    return SourceCheckpoint(
        model=model,
        own_logits=own_logits,
        labels=tuple(str(names[number]) for number in sorted(names)),
        tokenizer=tokenizer,
        tokenizer_json=tokenizer.backend_tokenizer.to_str(pretty=True).encode(),
        sha256=sha256_of(*weights, folder / CONFIG_FILE),
        training=_read_report(folder / REPORT_FILE),
        ranges=_read_ranges(folder),
        gates_left_out=gates_left_out,
        text_pairs=_text_pairs(config, tokenizer),
    )


def _text_pairs(config: dict[str, Any], tokenizer: PreTrainedTokenizerFast) -> bool | None:
    """What the config says; without it, false for a model that lacks the second text's segment."""
    segments = int(config.get("backbone_config", config).get("type_vocab_size", 2))
    if "token_type_ids" in tokenizer.model_input_names and max(tokenizer("a", "b")["token_type_ids"]) >= segments:
        return False
    return cast(bool | None, config.get("text_pairs"))


def _weights_files(folder: Path) -> list[Path]:
    """The file of the weights, or the files that their index names, in order; ExportError where there are none."""
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    if not (folder / INDEX_FILE).is_file():
        raise ExportError(f"{folder} is not a checkpoint: it has no {WEIGHTS_FILE}", hint=HINT)
    try:
        index = json.loads((folder / INDEX_FILE).read_text(encoding="utf-8"))["weight_map"]
        return [folder / INDEX_FILE, *(folder / name for name in sorted(set(index.values())))]
    except (ValueError, KeyError, AttributeError, TypeError) as err:
        raise ExportError(f"{folder / INDEX_FILE} is not an index of weights", hint="copy the folder whole") from err


def _forward_logits(model: SmartBertForSequenceClassification) -> Callable[..., Tensor]:
    def logits(**batch: Tensor) -> Tensor:
        return cast(Tensor, model(**batch)[0])

    return logits


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
