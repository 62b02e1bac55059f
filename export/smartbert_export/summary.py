"""SUMMARY.md: the package for a person - what it is, how it was made, how good, its parts, its parity with PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from smartbert_runtime.manifest import Manifest
from smartbert_runtime.policy import Policy
from smartbert_runtime.verify import VerifyReport


def summary_text(manifest: Manifest, policy: Policy, report: VerifyReport, training: Mapping[str, Any]) -> str:
    """Markdown, without times or paths, so that two exports are byte-equal."""
    return "\n".join(
        [
            "# SmartBERT package",
            "",
            f"A text classifier of {manifest.model.layers} layers (hidden size {manifest.model.hidden_size}) that "
            'decides text by text which layers to run. Run it with `smartbert-infer THIS_FOLDER --text "..."`.',
            "",
            f"- labels: {', '.join(manifest.labels)}",
            f"- longest input: {manifest.model.max_length} tokens; longer texts are cut",
            f"- default policy: skip a layer at skip probability {policy.skip_threshold} and above, answer at "
            f"normalised entropy below {policy.exit_threshold}",
            f"- checkpoint sha256: {manifest.provenance.checkpoint_sha256}",
            "- made with " + ", ".join(f"{name} {version}" for name, version in manifest.provenance.packages.items()),
            "",
            *_training(training),
            *_parity(report),
            *_parts(manifest, report),
            "",
        ]
    )


def _training(training: Mapping[str, Any]) -> list[str]:
    if not training:
        return ["## Training", "", "The checkpoint carries no training report.", ""]
    dev, full, settings = training["dev"], training["dev_full_depth"], training["settings"]
    recalls = ", ".join(f"{label} {value:.4f}" for label, value in dev["recall"].items())
    return [
        "## Training",
        "",
        f"Fine-tuned from `{training['base_model']}` on {training['texts']['train']} texts; thresholds chosen on "
        f"{training['texts']['validation']} others; measured in PyTorch on {dev['texts']} dev texts:",
        "",
        f"- accuracy {dev['accuracy']:.4f} with {dev['mean_layers_run']:.2f} layers run on average "
        f"({full['accuracy']:.4f} with {full['mean_layers_run']:.2f} layers when no exit is taken)",
        f"- recall: {recalls}",
        f"- seed {settings['seed']}, {settings['stage1_epochs']} + {settings['stage2_epochs']} epochs, "
        f"texts cut to {settings['max_length']} tokens",
        "",
        "Limits: it knows the texts and the language that it was trained on; measure it on your own before you rely on "
        "it. Licence: that of the encoder and of the training texts; fill in yours.",
        "",
    ]


def _parity(report: VerifyReport) -> list[str]:
    lines = [
        "## Parity with PyTorch",
        "",
        "| run as | texts | other decisions | labels equal | max logit difference |",
    ]
    lines.append("|---|---|---|---|---|")
    for check in report.texts:
        found = check.decisions
        lines.append(
            f"| {check.how} | {found.texts} | {len(found.different)} | {found.label_agreement:.2%} "
            f"| within {found.logits.tolerance:.0e} |"
        )
    return [*lines, ""]


def _parts(manifest: Manifest, report: VerifyReport) -> list[str]:
    tolerance = {check.part: check.difference.tolerance for check in report.parts}
    lines = [
        "## Parts",
        "",
        "| part | inputs | outputs | size, kB | differs from PyTorch by |",
        "|---|---|---|---|---|",
    ]
    for component in manifest.components:
        inputs, outputs = (
            ", ".join(f"{spec.name} ({','.join(spec.dims)})" for spec in specs)
            for specs in (component.inputs, component.outputs)
        )
        size = next(iter(component.files.values())).bytes / 1000.0
        lines.append(
            f"| {component.name} | {inputs} | {outputs} | {size:.0f} | under {tolerance[component.name]:.0e} |"
        )
    return lines
