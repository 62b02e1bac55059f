"""Step 6 of an export: the files of the package folder - graphs, tokenizer, golden samples, manifest, policies."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path

from smartbert.configuration import SmartBertConfig
from smartbert_export.graphs.coverage import Coverage
from smartbert_export.graphs.graph_files import VariantGraphs
from smartbert_export.options import ExportOptions
from smartbert_export.package_files import write_file
from smartbert_export.parity.golden_samples import GoldenRecord
from smartbert_export.parts.signatures import signature
from smartbert_export.source_checkpoint import SourceCheckpoint
from smartbert_export.write_graphs import write_graphs
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.package.decode import encode
from smartbert_runtime.package.manifest import (
    DIGEST_FILE,
    MANIFEST_FILE,
    POLICY_FILE,
    SCHEMA_VERSION,
    GoldenFiles,
    Manifest,
    ModelFacts,
    Provenance,
    TokenizerFiles,
)
from smartbert_runtime.package.policy_file import POLICY_SCHEMA_VERSION, PolicyFile
from smartbert_runtime.reporting import SILENT, Reporter
from smartbert_runtime.tokenizer import TokenizerSettings


def write_package(
    staging: Path,
    source: SourceCheckpoint,
    golden: GoldenRecord,
    variants: Sequence[VariantGraphs],
    coverage: Mapping[Path, Coverage],
    settings: TokenizerSettings,
    policy: Policy,
    options: ExportOptions,
    *,
    reporter: Reporter = SILENT,
) -> Manifest:
    """Write everything but SUMMARY.md into `staging`; the manifest, which lists every file with its hash."""
    config = source.model.config
    components, operators = write_graphs(
        staging, variants, config, coverage, ort_format=options.graphs.ort_format, reporter=reporter
    )
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        model=_model_facts(config, settings.max_length, options, source.text_pairs),
        labels=source.labels,
        input=signature(config, "embeddings")[0],
        output=signature(config, "exit")[1],
        variants=options.graphs.variants(),
        components=components,
        tokenizer=_write_tokenizer(staging, source.tokenizer_json, settings),
        golden=_write_golden(staging, golden, policy),
        provenance=_provenance(source.sha256, options),
        operators=operators,
    )
    _write_manifest(staging, manifest)
    _write_policies(staging, manifest, policy)
    return manifest


def _model_facts(
    config: SmartBertConfig, max_length: int, options: ExportOptions, text_pairs: bool | None
) -> ModelFacts:
    return ModelFacts(
        family=str(config.backbone_config["model_type"]),
        layers=config.layers,
        hidden_size=config.hidden_size,
        max_length=max_length,
        fixed_shape=options.graphs.fixed_shape,
        gates=config.gates,
        early_exits=config.early_exits,
        text_pairs=text_pairs,
    )


def _provenance(checkpoint_sha256: str, options: ExportOptions) -> Provenance:
    return Provenance(
        checkpoint_sha256=checkpoint_sha256,
        opset=options.graphs.opset,
        options={
            "layout": list(options.graphs.layouts),
            "precision": list(options.graphs.precisions),
            "target": options.graphs.target,
            "ort_format": options.graphs.ort_format,
            "golden_texts": options.golden_texts,
            "gates": options.gates,
            "license": options.license,
        },
        packages={name: importlib.metadata.version(name) for name in ("smartbert", "torch", "transformers", "onnx")},
    )


def _write_tokenizer(staging: Path, tokenizer_json: bytes, settings: TokenizerSettings) -> TokenizerFiles:
    (staging / "tokenizer").mkdir()
    return TokenizerFiles(
        tokenizer=write_file(staging, "tokenizer/tokenizer.json", tokenizer_json),
        settings=write_file(staging, "tokenizer/settings.json", encode(settings).encode()),
    )


def _write_golden(staging: Path, golden: GoldenRecord, policy: Policy) -> GoldenFiles:
    (staging / "golden").mkdir()
    texts = None
    if golden.texts_jsonl is not None:
        texts = write_file(staging, "golden/texts.jsonl", golden.texts_jsonl)
    expected = write_file(staging, "golden/expected.npz", golden.expected_npz)
    return GoldenFiles(expected=expected, policy=policy, texts=texts)


def _write_manifest(staging: Path, manifest: Manifest) -> None:
    content = encode(manifest).encode()
    (staging / MANIFEST_FILE).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    (staging / DIGEST_FILE).write_text(f"{digest}  {MANIFEST_FILE}\n", encoding="ascii")


def _write_policies(staging: Path, manifest: Manifest, policy: Policy) -> None:
    presets = {"default": policy, "full-depth": policy.at_full_depth()}
    variants = {variant.name: presets for variant in manifest.variants}
    policies = PolicyFile(schema_version=POLICY_SCHEMA_VERSION, variants=variants).sealed()
    (staging / POLICY_FILE).write_text(encode(policies), encoding="utf-8")
