"""The contender `optimum`: a plain fine-tuned checkpoint, exported and quantized by optimum-onnx."""

from __future__ import annotations

import json
import platform
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

from optimum.exporters.onnx import main_export
from optimum.onnxruntime import ORTQuantizer
from optimum.onnxruntime.configuration import AutoQuantizationConfig

from smartbert.backbones import FAMILIES
from smartbert.checkpoint_folder import load_tokenizer
from smartbert.configuration import SmartBertConfig
from smartbert.plain_classifier import MeanPooledConfig
from smartbert_bench.contenders.contender import OPTIMUM, Contender, rival_providers
from smartbert_bench.settings import BenchSettings
from smartbert_bench.workers.optimum_worker import OptimumSpec
from smartbert_bench.workers.process import WorkerSpec
from smartbert_bench.workers.protocol import FULL_DEPTH
from smartbert_export.library_output import own_logging, quiet_logger
from smartbert_export.source_checkpoint import CONFIG_FILE
from smartbert_runtime.errors import ConfigError, ExportError, InputError
from smartbert_runtime.package.open import Package

TRAIN_HINT = "train it with smartbert-train --arm plain --pooling first"
# File names are optimum's own.
GRAPHS = {"fp32": "model.onnx", "int8": "model_quantized.onnx"}
# What is read besides the graph. Optimum writes more: the slow tokenizer's vocabulary, its own settings.
NEEDED = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def optimum_contenders(checkpoint: Path, package: Package, settings: BenchSettings, folder: Path) -> list[Contender]:
    """The checkpoint in fp32 and int8, each in its own folder under `folder`.

    Raises InputError or ConfigError for a checkpoint that is not a plain classifier with the package's labels,
    ExportError when optimum cannot export it.
    """
    config = _read_config(checkpoint)
    max_length = _check(config, checkpoint, package)
    load_tokenizer(str(checkpoint), vocab_size=int(config["vocab_size"]))  # raises where optimum would guess
    with own_logging(), quiet_logger("root"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _export(checkpoint, folder)
        except Exception as err:  # anything that optimum, torch or onnxruntime raise
            raise ExportError(f"optimum cannot export {checkpoint}: {err}", hint=TRAIN_HINT) from err
    contenders = []
    for precision, graph in GRAPHS.items():
        spec = OptimumSpec(
            folder=str(folder / precision),
            graph=graph,
            max_length=max_length,
            providers=rival_providers(settings.providers),
            threads=settings.threads,
        )
        name = f"{OPTIMUM}-{precision}"
        contenders.append(
            Contender(
                name=name,
                kind=OPTIMUM,
                precision=precision,
                worker=WorkerSpec(name=name, module="smartbert_bench.workers.optimum_worker", spec=asdict(spec)),
                mode=FULL_DEPTH,
                layers=int(config["num_hidden_layers"]),
                disk_bytes=sum(
                    file.stat().st_size for file in (folder / precision).iterdir() if file.name in {graph, *NEEDED}
                ),
            )
        )
    return contenders


def _export(checkpoint: Path, folder: Path) -> None:
    """As in optimum's documentation: export, then dynamic int8, per-channel scales, for this kind of processor."""
    main_export(
        str(checkpoint),
        folder / "fp32",
        task="text-classification",
        library_name="transformers",
        do_validation=False,
    )
    arm = platform.machine().lower() in ("arm64", "aarch64")
    config = (AutoQuantizationConfig.arm64 if arm else AutoQuantizationConfig.avx512_vnni)(
        is_static=False, per_channel=True
    )
    ORTQuantizer.from_pretrained(folder / "fp32").quantize(config, folder / "int8")


def _read_config(checkpoint: Path) -> dict[str, Any]:
    try:
        config = json.loads((checkpoint / CONFIG_FILE).read_text(encoding="utf-8"))
        kind = config.get("model_type")
    except (OSError, ValueError, AttributeError) as err:
        raise InputError(f"{checkpoint} is not a checkpoint", hint=TRAIN_HINT) from err
    if kind == MeanPooledConfig.model_type:
        raise ConfigError(f"{checkpoint} averages all tokens, a class that optimum does not support", hint=TRAIN_HINT)
    if kind == SmartBertConfig.model_type:
        raise ConfigError(f"{checkpoint} holds a SmartBERT, not a plain classifier", hint=TRAIN_HINT)
    if kind not in FAMILIES:
        raise ConfigError(f"{checkpoint} holds a {kind!r} model", hint=TRAIN_HINT)
    return dict(config)


def _check(config: dict[str, Any], checkpoint: Path, package: Package) -> int:
    """The package's token limit, for truncation; ConfigError for other labels or a shorter limit."""
    family = FAMILIES[config["model_type"]]
    parsed = family.config_class.from_dict(config)
    labels, package_labels = set((parsed.id2label or {}).values()), set(package.manifest.labels)
    if labels != package_labels:
        raise ConfigError(
            f"{checkpoint} has the labels {', '.join(sorted(labels))}, the package {', '.join(sorted(package_labels))}",
            hint="train both on the same file",
        )
    limit = int(config.get("max_input_length") or family.longest_input(parsed))
    needed = package.manifest.model.max_length
    if limit < needed:
        raise ConfigError(
            f"{checkpoint} was trained on texts truncated to {limit} tokens, the package on {needed}",
            hint=f"train it with --max-length {needed}",
        )
    return needed
