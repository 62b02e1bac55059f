"""From a checkpoint to a package folder: parts, golden samples, manifest, parity, then the rename."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from smartbert.checkpoint import GOLDEN_TEXTS_FILE
from smartbert.modeling import SmartBertForSequenceClassification
from smartbert.staging import check_target, staged_folder
from smartbert_export.checkpoint import Checkpoint, open_checkpoint
from smartbert_export.convert import OPSET, Template, make_template
from smartbert_export.golden import clear_calls, record, record_probe, small_probes, wide_probes
from smartbert_export.parts import SIGNATURES, example_inputs, part_module, part_names, signature
from smartbert_export.summary import summary_text
from smartbert_runtime.errors import ExportError, InputError
from smartbert_runtime.golden import Golden, pack
from smartbert_runtime.manifest import (
    DIGEST_FILE,
    MANIFEST_FILE,
    POLICY_FILE,
    SCHEMA_VERSION,
    Component,
    FileEntry,
    GoldenFiles,
    Manifest,
    ModelFacts,
    Provenance,
    TokenizerFiles,
    Variant,
    open_package,
)
from smartbert_runtime.policy import POLICY_SCHEMA_VERSION, Policy, PolicyFile
from smartbert_runtime.records import Columns, read_examples
from smartbert_runtime.schema import encode
from smartbert_runtime.sessions import Sessions
from smartbert_runtime.tokenizer import Tokenizer, TokenizerSettings
from smartbert_runtime.verify import VerifyReport, require_parity, verify

GOLDEN_BYTES = 5_000_000

VARIANT = Variant(name="separate-fp32", layout="separate", precision="fp32")


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What to export. golden_file replaces the checkpoint's golden texts; golden_texts=False ships token ids only."""

    golden_file: Path | None = None
    golden_texts: bool = True
    overwrite: bool = False


def export_package(
    checkpoint: Path,
    output: Path,
    options: ExportOptions | None = None,
    *,
    say: Callable[[str], None] = lambda s: None,
) -> VerifyReport:
    """Export `checkpoint` to the package folder `output`, whole or not at all; returns the parity report.

    Raises ExportError for a checkpoint that cannot be cut, ParityError (nothing is written) when a part or a decision
    differs from PyTorch's.
    """
    options = options or ExportOptions()
    if checkpoint.resolve().is_relative_to(output.resolve()):
        raise InputError(f"{output} holds the checkpoint itself", hint="name another folder for the package")
    check_target(output, overwrite=options.overwrite)
    source = open_checkpoint(checkpoint)
    texts, pairs = _golden_texts(checkpoint, options.golden_file)
    with staged_folder(output, overwrite=options.overwrite) as staging:
        config = source.model.config
        policy = Policy(skip_threshold=config.skip_threshold, exit_threshold=config.exit_threshold)
        components = _write_parts(source.model, staging, say)
        tokenizer_files, tokenizer = _write_tokenizer(source, staging)
        say("recording golden samples")
        golden_files, golden = _write_golden(source.model, tokenizer, texts, pairs, policy, options, staging, say)
        manifest = _manifest(source, components, tokenizer_files, golden_files, options)
        _write_manifest(manifest, staging)
        presets = {"default": policy, "full-depth": policy.without_shortcuts()}
        policies = PolicyFile(schema_version=POLICY_SCHEMA_VERSION, variants={VARIANT.name: presets}).sealed()
        (staging / POLICY_FILE).write_text(encode(policies), encoding="utf-8")
        report = _check(source.model, golden, policy, staging, say)
        (staging / "SUMMARY.md").write_text(summary_text(manifest, policy, report, source.training), encoding="utf-8")
    return report


def _manifest(
    source: Checkpoint,
    components: tuple[Component, ...],
    tokenizer_files: TokenizerFiles,
    golden_files: GoldenFiles,
    options: ExportOptions,
) -> Manifest:
    config = source.model.config
    packages = {name: importlib.metadata.version(name) for name in ("smartbert", "torch", "transformers", "onnx")}
    return Manifest(
        schema_version=SCHEMA_VERSION,
        model=ModelFacts(
            family=str(config.backbone_config["model_type"]),
            layers=config.layers,
            hidden_size=config.hidden_size,
            max_length=config.max_input_length,
        ),
        labels=source.labels,
        input=signature(config, "embeddings")[0],
        output=signature(config, "exit")[1],
        variants=(VARIANT,),
        components=components,
        tokenizer=tokenizer_files,
        golden=golden_files,
        provenance=Provenance(
            checkpoint_sha256=source.sha256,
            opset=OPSET,
            options={"layout": ["separate"], "precision": ["fp32"], "golden_texts": options.golden_texts},
            packages=packages,
        ),
    )


def _write_parts(
    model: SmartBertForSequenceClassification, staging: Path, say: Callable[[str], None]
) -> tuple[Component, ...]:
    config = model.config
    (staging / "graphs").mkdir()
    templates: dict[str, Template] = {}
    components = []
    for name, role, index in part_names(config):
        inputs, outputs = signature(config, role)
        module = part_module(model, role, index)
        if role not in templates:
            say(f"tracing {role} ({len(templates) + 1} of {len(SIGNATURES)} kinds)")
            templates[role] = make_template(module, example_inputs(config, role), inputs, outputs)
        say(f"writing {name}")
        content = templates[role].filled(module).SerializeToString(deterministic=True)
        entry = _write(staging, f"graphs/{name}.onnx", content)
        components.append(
            Component(name=name, role=role, index=index, inputs=inputs, outputs=outputs, files={VARIANT.name: entry})
        )
    return tuple(components)


def _write_tokenizer(source: Checkpoint, staging: Path) -> tuple[TokenizerFiles, Tokenizer]:
    settings = TokenizerSettings(
        max_length=source.model.config.max_input_length,
        pad_id=source.pad_id,
        type_ids=source.type_ids,
    )
    (staging / "tokenizer").mkdir()
    files = TokenizerFiles(
        tokenizer=_write(staging, "tokenizer/tokenizer.json", source.tokenizer_json),
        settings=_write(staging, "tokenizer/settings.json", encode(settings).encode()),
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
        text_entry = _write(staging, "golden/texts.jsonl", ("\n".join(lines) + "\n").encode())
    expected = _write(staging, "golden/expected.npz", pack(golden))
    if expected.bytes + (text_entry.bytes if text_entry else 0) > GOLDEN_BYTES:
        raise ExportError(f"{len(clear)} golden texts take more than 5 MB", hint="give fewer with --golden-file")
    return GoldenFiles(expected=expected, policy=policy, texts=text_entry), golden


def _check(
    model: SmartBertForSequenceClassification,
    golden: Golden,
    policy: Policy,
    staging: Path,
    say: Callable[[str], None],
) -> VerifyReport:
    """Parity of the staged folder with PyTorch, from 1 token to the longest input; ParityError ends the export."""
    probes = tuple(record_probe(model, probe) for probe in wide_probes(golden.tokens, model.config.max_input_length))
    return require_parity(
        verify(
            Sessions(open_package(staging), VARIANT),
            replace(golden, probes=probes),
            policy,
            oracle="PyTorch",
            on_part=lambda name: say(f"checking {name}"),
        )
    )


def _write_manifest(manifest: Manifest, staging: Path) -> None:
    text = encode(manifest).encode()
    (staging / MANIFEST_FILE).write_bytes(text)
    digest = hashlib.sha256(text).hexdigest()
    (staging / DIGEST_FILE).write_text(f"{digest}  {MANIFEST_FILE}\n", encoding="ascii")


def _write(staging: Path, file: str, content: bytes) -> FileEntry:
    (staging / file).write_bytes(content)
    return FileEntry(file=file, sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
