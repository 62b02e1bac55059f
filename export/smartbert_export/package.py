"""From a checkpoint to a package folder: parts, golden samples, manifest, parity, then the rename."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from smartbert.atomic_folder import atomic_folder, check_target
from smartbert.checkpoint_folder import GOLDEN_TEXTS_FILE
from smartbert.modeling import SmartBertForSequenceClassification
from smartbert_export.freed_memory import give_back
from smartbert_export.graphs.layout_files import Graphs, write_graphs
from smartbert_export.options import ExportOptions, GraphOptions
from smartbert_export.package_files import write_file
from smartbert_export.parity.probes import recombined, small_probes, wide_probes
from smartbert_export.parity.record import clear_calls, record, record_probe
from smartbert_export.parts.signatures import signature
from smartbert_export.quantize.agreement import TEXTS, QuantizationReport
from smartbert_export.quantize.weights import FP32
from smartbert_export.source_checkpoint import Checkpoint, open_checkpoint
from smartbert_export.summary import summary_text
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.errors import ConfigError, ExportError, InputError
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
from smartbert_runtime.package.open import open_package
from smartbert_runtime.package.policy_file import POLICY_SCHEMA_VERSION, PolicyFile
from smartbert_runtime.parity.golden import Golden, pack
from smartbert_runtime.parity.verify import VerifyReport, require_parity, verify
from smartbert_runtime.sessions.sessions import Sessions
from smartbert_runtime.text_files.columns import Columns
from smartbert_runtime.text_files.examples import read_examples
from smartbert_runtime.tokenizer import Tokenizer, TokenizerSettings, Tokens

GOLDEN_BYTES = 5_000_000


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What was exported: parity of every variant, what quantizing did, and what the model can decide.

    skipped: share of the layers that the golden texts reach and their gates leave out; None without gates.
    """

    parity: tuple[VerifyReport, ...]
    quantization: Mapping[str, QuantizationReport]
    model: ModelFacts
    skipped: float | None


def export_package(
    checkpoint: Path,
    output: Path,
    options: ExportOptions | None = None,
    *,
    say: Callable[[str], None] = lambda s: None,
) -> ExportReport:
    """Export `checkpoint` to the package folder `output`, whole or not at all.

    Raises ConfigError for a fixed shape longer than the model, ExportError for a checkpoint that cannot be cut,
    ParityError (nothing is written) when a part or a decision differs from PyTorch's.
    """
    options = options or ExportOptions()
    if checkpoint.resolve().is_relative_to(output.resolve()):
        raise InputError(f"{output} holds the checkpoint itself", hint="name another folder for the package")
    check_target(output, overwrite=options.overwrite)
    source = open_checkpoint(checkpoint, gates=options.gates)
    if not (options.gates or source.gates_left_out):
        say("note: this checkpoint has no gates to leave out")
    max_length = _max_length(source, options.graphs)
    texts, pairs = _golden_texts(checkpoint, options.golden_file)
    with atomic_folder(output, overwrite=options.overwrite) as staging:
        config = source.model.config
        policy = Policy(
            skip_threshold=config.skip_threshold,
            exit_threshold=config.exit_threshold,
            no_skip=not config.gates,
            no_exit=not config.early_exits,
        )
        tokenizer_files, tokenizer = _write_tokenizer(source, staging, max_length)
        check_tokens = _check_tokens(options, tokenizer, texts, pairs, say)
        say("recording golden samples")
        golden_files, golden = _write_golden(source.model, tokenizer, texts, pairs, policy, options, staging, say)
        # From 1 token to the longest input: what the export is checked with, too large to ship.
        wide = tuple(record_probe(source.model, probe) for probe in wide_probes(golden.tokens, max_length))
        graphs = write_graphs(source.model, staging, options.graphs, policy, check_tokens, say)
        manifest = _manifest(source, graphs, tokenizer_files, golden_files, options, max_length)
        _write_manifest(manifest, staging)
        presets = {"default": policy, "full-depth": policy.at_full_depth()}
        variants = {variant.name: presets for variant in manifest.variants}
        policies = PolicyFile(schema_version=POLICY_SCHEMA_VERSION, variants=variants).sealed()
        (staging / POLICY_FILE).write_text(encode(policies), encoding="utf-8")
        parity = _check(replace(golden, probes=wide), policy, staging, say)
        report = ExportReport(
            parity=parity,
            quantization=graphs.quantization,
            model=manifest.model,
            skipped=_skipped(golden) if manifest.model.gates else None,
        )
        summary = summary_text(
            manifest,
            policy,
            report.parity,
            graphs.quantization,
            source.training,
            options.license,
            gates_left_out=source.gates_left_out,
        )
        (staging / "SUMMARY.md").write_text(summary, encoding="utf-8")
    return report


def _max_length(source: Checkpoint, options: GraphOptions) -> int:
    longest = source.model.config.max_input_length
    if options.fixed_shape is None:
        return longest
    length = options.fixed_shape[1]
    if length > longest:
        raise ConfigError(
            f"a fixed shape of {length} tokens is longer than the model's {longest}",
            hint=f"give --fixed-shape {options.fixed_shape[0]},{longest} or shorter",
        )
    return length


def _check_tokens(
    options: ExportOptions,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    say: Callable[[str], None],
) -> Tokens | None:
    """The texts that decide what may be quantized; None when nothing is to be."""
    if options.graphs.precisions == (FP32,):
        return None
    if options.check_file is not None:
        examples = read_examples(options.check_file, Columns())
        if len(examples) < TEXTS:
            say(f"note: {len(examples)} texts decide what may be quantized; {TEXTS} or more would be surer")
        return tokenizer.encode(examples.texts, examples.pairs)
    made, made_pairs = recombined(texts, pairs, TEXTS)
    say(f"{len(made)} texts made of {len(texts)} golden ones decide what may be quantized (see --check-file)")
    return tokenizer.encode(made, made_pairs)


def _manifest(
    source: Checkpoint,
    graphs: Graphs,
    tokenizer_files: TokenizerFiles,
    golden_files: GoldenFiles,
    options: ExportOptions,
    max_length: int,
) -> Manifest:
    config = source.model.config
    packages = {name: importlib.metadata.version(name) for name in ("smartbert", "torch", "transformers", "onnx")}
    return Manifest(
        schema_version=SCHEMA_VERSION,
        model=ModelFacts(
            family=str(config.backbone_config["model_type"]),
            layers=config.layers,
            hidden_size=config.hidden_size,
            max_length=max_length,
            fixed_shape=options.graphs.fixed_shape,
            gates=config.gates,
            early_exits=config.early_exits,
        ),
        labels=source.labels,
        input=signature(config, "embeddings")[0],
        output=signature(config, "exit")[1],
        variants=options.graphs.variants(),
        components=graphs.components,
        tokenizer=tokenizer_files,
        golden=golden_files,
        provenance=Provenance(
            checkpoint_sha256=source.sha256,
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
            packages=packages,
        ),
        operators=graphs.operators,
    )


def _write_tokenizer(source: Checkpoint, staging: Path, max_length: int) -> tuple[TokenizerFiles, Tokenizer]:
    settings = TokenizerSettings(
        max_length=max_length,
        pad_id=source.pad_id,
        type_ids=source.type_ids,
    )
    (staging / "tokenizer").mkdir()
    files = TokenizerFiles(
        tokenizer=write_file(staging, "tokenizer/tokenizer.json", source.tokenizer_json),
        settings=write_file(staging, "tokenizer/settings.json", encode(settings).encode()),
    )
    return files, Tokenizer(source.tokenizer_json, settings)


def _golden_texts(checkpoint: Path, golden_file: Path | None) -> tuple[Sequence[str], Sequence[str] | None]:
    file = golden_file or checkpoint / GOLDEN_TEXTS_FILE
    if golden_file is None and not file.is_file():
        raise ExportError(
            f"{checkpoint} holds no {GOLDEN_TEXTS_FILE}", hint="give texts to record with --golden-file FILE"
        )
    examples = read_examples(file, Columns())
    return examples.texts, examples.pairs


def _write_golden(
    model: SmartBertForSequenceClassification,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    policy: Policy,
    options: ExportOptions,
    staging: Path,
    say: Callable[[str], None],
) -> tuple[GoldenFiles, Golden]:
    """Record, leave out texts with a call too near to be replayed on another machine, and write."""
    tokens = tokenizer.encode(texts, pairs)
    golden = record(model, small_probes(model, tokens), tokens, policy)
    clear = clear_calls(golden, policy)
    if not clear:
        raise ExportError(
            "every golden text has a decision too near its threshold to be replayed elsewhere",
            hint="give other texts with --golden-file",
        )
    if len(clear) < len(golden.traces):
        say(f"{len(golden.traces) - len(clear)} golden texts left out: a decision too near its threshold")
    golden = replace(golden, tokens=tokens.rows(clear), traces=tuple(golden.traces[row] for row in clear))
    (staging / "golden").mkdir()
    lines = [
        json.dumps(
            {"text": texts[row], **({"text_pair": pairs[row]} if pairs is not None else {})},
            ensure_ascii=False,
        )
        for row in clear
    ]
    text_entry = None
    if options.golden_texts:
        text_entry = write_file(staging, "golden/texts.jsonl", ("\n".join(lines) + "\n").encode())
    expected = write_file(staging, "golden/expected.npz", pack(golden))
    if expected.bytes + (text_entry.bytes if text_entry else 0) > GOLDEN_BYTES:
        raise ExportError(f"{len(clear)} golden texts take more than 5 MB", hint="give fewer with --golden-file")
    return GoldenFiles(expected=expected, policy=policy, texts=text_entry), golden


def _skipped(golden: Golden) -> float:
    skipped = sum(len(trace.layers_skipped) for trace in golden.traces)
    return skipped / (skipped + sum(len(trace.layers_run) for trace in golden.traces))


def _check(golden: Golden, policy: Policy, staging: Path, say: Callable[[str], None]) -> tuple[VerifyReport, ...]:
    """Parity of every staged variant with PyTorch; ParityError ends the export."""
    package = open_package(staging)
    reports = []
    for variant in package.manifest.variants:
        give_back()  # the weights of the sessions before
        report = verify(
            Sessions(package, variant, arena=False),
            golden,
            policy,
            oracle="PyTorch",
            on_part=functools.partial(_say_checking, say, variant.name),
        )
        reports.append(require_parity(report))
    return tuple(reports)


def _say_checking(say: Callable[[str], None], variant: str, part: str) -> None:
    say(f"checking {part} ({variant})")


def _write_manifest(manifest: Manifest, staging: Path) -> None:
    text = encode(manifest).encode()
    (staging / MANIFEST_FILE).write_bytes(text)
    digest = hashlib.sha256(text).hexdigest()
    (staging / DIGEST_FILE).write_text(f"{digest}  {MANIFEST_FILE}\n", encoding="ascii")
