"""SUMMARY.md: the package for a person - what it is, how it was made, how good, its parts, its parity with PyTorch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from smartbert_export.precisions import FP32
from smartbert_export.quantize.agreement import MAX_LOSS_ALONE, MAX_LOSS_TOGETHER, Agreement, QuantizationReport
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.package.manifest import Manifest, ModelFacts
from smartbert_runtime.package.part_names import EXIT
from smartbert_runtime.parity.verify import VerifyReport

# A gate's share of a layer's time is 3 to 11 % with hidden size 384 and 1 to 4 % with 768 (16 to 128 tokens, 1 and 2
# threads, by studies.performance.speed on a package with and without): the less the larger.
GATE_COST, AT_HIDDEN_SIZE = 0.06, 384
LEFT_OUT = "- left out: the skipping gates; exit threshold and quality below are those of the model with them"
NO_LICENSE = "not given (`--license`); those of the encoder and of the training texts bind it"


def summary_text(
    manifest: Manifest,
    policy: Policy,
    reports: Sequence[VerifyReport],
    quantization: Mapping[str, QuantizationReport],
    training: Mapping[str, Any],
    license: str | None = None,
    *,
    gates_left_out: bool = False,
) -> str:
    """Markdown, without times or paths, so that two exports are byte-equal. license: what the user says it is."""
    return "\n".join(
        [
            "# SmartBERT package",
            "",
            f"A text classifier of {manifest.model.layers} layers (hidden size {manifest.model.hidden_size}). "
            f"{abilities(manifest.model)}",
            "",
            'Run it with `smartbert-infer THIS_FOLDER --text "..."`.',
            "",
            f"- labels: {', '.join(manifest.labels)}",
            f"- longest input: {manifest.model.max_length} tokens; longer texts are cut",
            *_default_policy(policy),
            *([LEFT_OUT] if gates_left_out else []),
            f"- license: {license or NO_LICENSE}",
            f"- checkpoint sha256: {manifest.provenance.checkpoint_sha256}",
            "- made with " + ", ".join(f"{name} {version}" for name, version in manifest.provenance.packages.items()),
            "",
            *_training(training, early_exits=manifest.model.early_exits),
            *_parity(reports),
            *_quantization(quantization),
            *_parts(manifest, reports),
            *_coverage(manifest),
            "",
        ]
    )


def abilities(model: ModelFacts) -> str:
    """What the model decides text by text, as a sentence."""
    if not model.early_exits:
        return (
            f"It is a plain classifier, without gates and exit heads: every text runs all {model.layers} layers; "
            "smartbert-train trains a model that exits early."
        )
    if not model.gates:
        return "It has exit heads and no skipping gates: text by text it decides where to answer, and skips no layer."
    return "Text by text it decides which layers to run and where to answer."


def _default_policy(policy: Policy) -> list[str]:
    rules = [] if policy.no_skip else [f"skip a layer at skip probability {policy.skip_threshold} and above"]
    rules += [] if policy.no_exit else [f"answer at normalized entropy below {policy.exit_threshold}"]
    return [f"- default policy: {', '.join(rules) or 'run every layer'}"]


def export_lines(
    reports: Sequence[VerifyReport],
    quantization: Mapping[str, QuantizationReport],
    skipped: float | None = None,
    hidden_size: int = AT_HIDDEN_SIZE,
) -> list[str]:
    """What smartbert-export prints: parity of every variant, parts that stay fp32, gates that cost more than they save.

    skipped: share of the layers that gates skipped, in a model of this hidden size.
    """
    cost = GATE_COST * min(1.0, AT_HIDDEN_SIZE / hidden_size)
    lines = []
    for report in reports:
        agreed = min((check.decisions.label_agreement for check in report.texts), default=1.0)
        worst = max(report.parts, key=lambda check: check.difference.max_abs, default=None)
        part = "" if worst is None else f"worst part {worst.part} {worst.difference.max_abs:.1e} from PyTorch, "
        lines.append(f"parity   {report.variant}: {part}{agreed:.2%} of the golden labels equal")
    for name, found in quantization.items():
        parts = len(found.alone)
        lines.append(
            f"{found.precision:<8} {name}: {parts - len(found.refused)} of {parts} parts quantized "
            f"({_schemes(found)}); on {found.texts} texts {_loss(found.together)} accuracy lost, "
            f"{found.together.labels:.2%} of the labels and {found.together.exit_layers:.2%} of the exits as in fp32"
        )
        lines += [f"         {part} stays fp32: {_reason(found, part)}" for part in found.refused]
    if skipped is not None and skipped < cost:
        lines.append(
            f"gates    skip {skipped:.1%} of the layers that golden texts reach, and evaluating one costs about "
            f"{cost:.0%} of a layer on a CPU: --no-gates may make a faster package"
        )
    return lines


def _reason(report: QuantizationReport, part: str) -> str:
    return f"{report.refused[part]}: {_loss(report.alone[part])}"


def _loss(found: Agreement) -> str:
    """Points of accuracy, as in "0.12 % (-0.31 to 0.55 %)"."""
    loss = found.loss
    return f"{loss.mean:.2%} ({loss.lower:.2%} to {loss.upper:.2%})"


def _schemes(report: QuantizationReport) -> str:
    """As in "12 static, 1 table rows"."""
    counts = Counter(report.schemes.values())
    return ", ".join(f"{count} {scheme}" for scheme, count in sorted(counts.items())) or "none"


def _training(training: Mapping[str, Any], *, early_exits: bool) -> list[str]:
    if not training:
        return ["## Training", "", "The checkpoint carries no training report.", ""]
    dev, full, settings = training["dev"], training["dev_full_depth"], training["settings"]
    recalls = ", ".join(f"{label} {value:.4f}" for label, value in dev["recall"].items())
    return [
        "## Training",
        "",
        f"Fine-tuned from `{training['base_model']}` on {training['texts']['train']} texts; "
        f"{'thresholds' if early_exits else 'the epoch'} chosen on {training['texts']['validation']} others; "
        f"evaluated in PyTorch on {dev['texts']} dev texts:",
        "",
        f"- accuracy {dev['accuracy']:.4f} with {dev['mean_layers_run']:.2f} layers run on average"
        + (
            f" ({full['accuracy']:.4f} with {full['mean_layers_run']:.2f} layers when no exit is taken)"
            if early_exits
            else ""
        ),
        f"- recall: {recalls}",
        f"- seed {settings['seed']}, {settings['stage1_epochs']} + {settings['stage2_epochs']} epochs, "
        f"texts cut to {settings['max_length']} tokens",
        "",
        "Limits: it knows the texts and the language that it was trained on; evaluate it on your own texts before you "
        "rely on it.",
        "",
    ]


def _parity(reports: Sequence[VerifyReport]) -> list[str]:
    lines = [
        "## Parity with PyTorch",
        "",
        "fp32 makes the same decisions, except for those within 1e-4 of their threshold; quantized weights turn some "
        "near decisions, and their labels have to agree.",
        "",
        "| variant | run as | texts | other decisions | exits equal | labels equal | logit difference |",
        "|---|---|---|---|---|---|---|",
    ]
    for report in reports:
        for check in report.texts:
            found = check.decisions
            # Not the last digits: they are another machine's.
            logits = f"under {found.logits.tolerance:.0e}" if found.exact else f"at most {found.logits.max_abs:.1g}"
            lines.append(
                f"| {report.variant} | {check.mode} | {found.texts} | {len(found.different)} "
                f"| {found.exit_agreement:.2%} | {found.label_agreement:.2%} | {logits} |"
            )
    return [*lines, ""]


def _quantization(quantization: Mapping[str, QuantizationReport]) -> list[str]:
    if not quantization:
        return []
    lines = [
        "## Quantized parts",
        "",
        "A part stays fp32 where quantizing it beyond doubt (the lower bound of a one-sided 95 % interval) loses more "
        f"than {MAX_LOSS_ALONE:.2%} accuracy alone, or all parts more than {MAX_LOSS_TOGETHER:.2%}. Without labels, a "
        "changed answer loses fp32's probability of its own answer less that of the other.",
        "",
        "| parts | texts | quantized | accuracy lost (interval) | labels as in fp32 | exits as in fp32 | stays fp32 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in quantization.items():
        kept = "; ".join(f"{part} ({_reason(found, part)})" for part in found.refused) or "none"
        lines.append(
            f"| {name} | {found.texts}, {'' if found.labeled else 'not '}labeled "
            f"| {len(found.alone) - len(found.refused)} of {len(found.alone)}: {_schemes(found)} "
            f"| {_loss(found.together)} | {found.together.labels:.2%} | {found.together.exit_layers:.2%} | {kept} |"
        )
    return [*lines, ""]


def _parts(manifest: Manifest, reports: Sequence[VerifyReport]) -> list[str]:
    tolerance = {(r.variant, check.part): check.difference.tolerance for r in reports for check in r.parts}
    lines = [
        "## Parts",
        "",
        "| variant | part | inputs | outputs | numbers | size, kB | differs from PyTorch by |",
        "|---|---|---|---|---|---|---|",
    ]
    for variant in manifest.variants:
        for component in manifest.in_variant(variant.name):
            inputs, outputs = (
                ", ".join(f"{spec.name} ({','.join(spec.dims)})" for spec in specs)
                for specs in (component.inputs, component.outputs)
            )
            entry = component.files[variant.name]
            size = f"{entry.bytes / 1000.0:.0f}"
            allowed = tolerance.get((variant.name, component.name))
            differs = "see above" if allowed is None else f"under {allowed:.0e}"
            numbers = component.schemes.get(variant.name, FP32)
            cells = (variant.name, component.name, inputs, outputs, numbers, size, differs)
            lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _coverage(manifest: Manifest) -> list[str]:
    """Operator coverage of the first parts of their kind, which stand for the others."""
    lines = [
        "## Operator coverage",
        "",
        "Nodes that accelerators' execution providers would take, by onnxruntime's own usability checker, not seen on "
        "a device."
        + (
            ""
            if manifest.model.fixed_shape
            else " Hardly any with dynamic shapes: export with --fixed-shape for accelerators."
        ),
        "",
    ]
    rows = [
        (variant.name, component.name, component.coverage[variant.name])
        for variant in manifest.variants
        for component in manifest.in_variant(variant.name)
        if component.index <= 1 or (component.index == manifest.model.layers and component.role == EXIT)
    ]
    providers = list(dict.fromkeys(provider for _, _, counts in rows for provider in counts))
    if not providers:
        return [*lines, "It could not be counted."]
    lines += [f"| variant | part | {' | '.join(providers)} |", "|---|---|" + "---|" * len(providers)]
    for variant_name, part, counts in rows:
        # A part may have none: counting is a report, and what the checker does not know ends no export.
        cells = [
            "{} of {}".format(*counts[provider]) if provider in counts else "not counted" for provider in providers
        ]
        lines.append(f"| {variant_name} | {part} | {' | '.join(cells)} |")
    return lines
