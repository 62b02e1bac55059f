"""A study's Markdown tables for one task and encoder, and the conditions below them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from smartbert.evaluation.curves import SAVINGS
from studies.training.results import ArmResult, paired_difference

COMPARED = (2.0, 3.0)
# A truncated model counts as being at a saving when its cost is within this share of it.
SAME_COST = 0.05
# Normalized entropies. The paper's thresholds, 0 to 0.6 nats, are 0 to 0.87 here with two classes, 0.33 with six.
SHOWN_THRESHOLDS = (0.1, 0.2, 0.33, 0.5, 0.87)


def table_text(arms: dict[str, ArmResult], about: str) -> str:
    """Every arm's quality at full depth, at the savings and as configured; then the paired comparisons.

    about: the study's question, for the title.
    """
    first = next(iter(arms.values()))
    run, metric = first.runs[0], first.metric
    seeds = sorted({entry["seed"] for arm in arms.values() for entry in arm.runs})
    plain = best_plain(arms)
    lines = [
        f"# {run['task']}, {run['backbone']}: {about}",
        "",
        *([f"**{run['note']}**", ""] if run["note"] else []),
        f"{_metric_name(metric)} on {run['texts']['dev']} dev texts ({run['mean_tokens']} tokens on average) after "
        f"training on {run['texts']['train']} texts, {run['texts']['validation']} more kept back to choose with; "
        f"{run['encoder_layers']} layers; seeds {', '.join(map(str, seeds))}, mean over seeds. Always answering the "
        f"commonest label is right for {max(run['dev_labels'].values()) / run['texts']['dev']:.1%} of the dev texts.",
        "",
        "MAC: multiply-accumulates per text at its real length, attention, gates and exit heads counted (reduced "
        "form), as a share of plain fine-tuning's. `at 2x`: at half of plain fine-tuning's MAC, between the two "
        "nearest points of the curve over exit thresholds (PABEE: patiences). `-`: the arm has no such point.",
        "",
        "| arm | seeds | full depth | its MAC |"
        + "".join(f" at {saving:g}x |" for saving in SAVINGS)
        + " as configured | its MAC |",
        "|---|---|---|---|" + "---|" * len(SAVINGS) + "---|---|",
    ]
    lines += [_row(arm) for arm in sorted(arms.values(), key=_order)]
    lines += ["", *_comparison(arms, plain), "", *_gates(arms), "", *_depth(arms), "", *_conditions(arms)]
    return "\n".join(lines) + "\n"


def best_plain(arms: dict[str, ArmResult]) -> ArmResult | None:
    """Plain fine-tuning with the pooling that is better on the validation texts, on common seeds."""
    plain = [arm for name, arm in arms.items() if name.startswith("plain")]
    seeds = set.intersection(*({run["seed"] for run in arm.runs} for arm in plain)) if plain else set()

    def validation(arm: ArmResult) -> float:
        return float(np.mean([run["validation"][arm.metric] for run in arm.runs if run["seed"] in seeds or not seeds]))

    return max(plain, key=validation, default=None)


def _order(arm: ArmResult) -> tuple[int, str]:
    known = ["plain-mean", "plain-first", "truncated", "deebert", "pabee", "no-gates", "smartbert"]
    # The rivals above SmartBERT, its variations below.
    place = next((number for number, name in enumerate(known) if arm.name.startswith(name)), len(known))
    return place, arm.name


def _metric_name(metric: str) -> str:
    return {"accuracy": "Accuracy (%)", "f1": "F1 (x100)", "matthews": "Matthews correlation (x100)"}[metric]


def _row(arm: ArmResult) -> str:
    quality, share = arm.full_depth()
    deviation = arm.deviation()
    spread = "" if math.isnan(deviation) else f" ± {100 * deviation:.2f}"
    cells = [arm.name, str(len(arm.runs)), f"{100 * quality:.2f}{spread}", f"{share:.1%}"]
    for saving in SAVINGS:
        value = arm.at(saving)
        cells.append("-" if value is None else f"{100 * value:.2f}")
    if arm.curve is None or arm.curve == "patience":
        cells += ["", ""]
    else:
        configured, cost = arm.configured()
        cells += [f"{100 * configured:.2f}", f"{cost:.1%}"]
    return "| " + " | ".join(cells) + " |"


def _comparison(arms: dict[str, ArmResult], plain: ArmResult | None) -> list[str]:
    """SmartBERT's accuracy against every rival's at the same cost, and against plain fine-tuning at full cost."""
    smart = arms.get("smartbert")
    if smart is None:
        return []
    lines = [
        "SmartBERT's accuracy minus a rival's, in points, with the 95 % interval over texts (paired bootstrap, "
        "correct answers averaged over seeds); plain fine-tuning is taken at its full cost, the others at SmartBERT's:",
        "",
        "| against |" + "".join(f" at {saving:g}x |" for saving in COMPARED),
        "|---|" + "---|" * len(COMPARED),
    ]
    for rival in sorted(arms.values(), key=_order):
        if rival is not smart:
            cells = [_against(smart, rival, saving) for saving in COMPARED]
            better = rival is plain and sum(name.startswith("plain") for name in arms) > 1
            name = f"{rival.name} (the better one on validation texts)" if better else rival.name
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _against(smart: ArmResult, rival: ArmResult, saving: float) -> str:
    """SmartBERT against a rival at the same saving; a truncated model only at the saving that it has."""
    ours, theirs = _same_seeds(smart, rival)
    if not ours.runs:
        return "-"
    if rival.curve is not None:
        return _difference(ours.correct_at(saving), theirs.correct_at(saving))
    if rival.name.startswith("truncated") and abs(theirs.full_depth()[1] * saving - 1.0) > SAME_COST:
        return "-"
    return _difference(ours.correct_at(saving), theirs.correct_at_full_depth())


def _same_seeds(one: ArmResult, other: ArmResult) -> tuple[ArmResult, ArmResult]:
    """Both arms with the seeds that both have."""
    seeds = {run["seed"] for run in one.runs} & {run["seed"] for run in other.runs}

    def restricted(arm: ArmResult) -> ArmResult:
        runs: Sequence[dict[str, object]] = tuple(run for run in arm.runs if run["seed"] in seeds)
        return ArmResult(name=arm.name, curve=arm.curve, runs=tuple(runs))

    return restricted(one), restricted(other)


def _gates(arms: dict[str, ArmResult]) -> list[str]:
    """What gates save: without exits, then with exits, against the same model's exits and against no gates."""
    gated = [arm for arm in sorted(arms.values(), key=_order) if arm.curve == "both"]
    if not gated:
        return []
    without = arms.get("no-gates")
    lines = [
        "What the gates bring. No text exits early, though every head is evaluated: the metric and MAC with gates "
        "obeyed and not, and the share of texts that skip each layer. Early exits on: accuracy with gates obeyed "
        "minus not, in points, at equal cost (95 % interval over texts)"
        + (
            "; the same against `no-gates`, trained and run without any, whose early exits at the MAC of gates on "
            "give the metric in brackets."
            if without
            else "."
        ),
        "",
        "| arm | gates on | its MAC | gates off | its MAC | skipped, layer by layer |"
        + "".join(f" at {saving:g}x |" for saving in COMPARED)
        + "".join(f" no-gates, at {saving:g}x |" for saving in COMPARED if without),
        "|---|---|---|---|---|---|" + "---|" * len(COMPARED) * (2 if without else 1),
    ]
    for arm in gated:
        off = ArmResult(name="gates off", curve="gates off", runs=arm.runs)
        quality, share = arm.without_exits()
        off_quality, off_share = off.without_exits()
        layers = range(int(arm.runs[0]["layers"]))
        rates = [sum(run["full_depth"]["skip_rate"][layer] for run in arm.runs) / len(arm.runs) for layer in layers]
        exits = _exits_at_equal_cost(arm, without)
        cells = [
            arm.name,
            f"{100 * quality:.2f}" + (f" [{100 * exits:.2f}]" if exits is not None else ""),
            f"{share:.1%}",
            f"{100 * off_quality:.2f}",
            f"{off_share:.1%}",
            " ".join(f"{100 * rate:.0f}" for rate in rates),
            *(_difference(arm.correct_at(saving), off.correct_at(saving)) for saving in COMPARED),
        ]
        if without:
            cells += [_against(arm, without, saving) for saving in COMPARED]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _exits_at_equal_cost(arm: ArmResult, without: ArmResult | None) -> float | None:
    """The metric of the arm without gates where its exits cost as much as this arm without exits, on common seeds."""
    if without is None:
        return None
    gated, gateless = _same_seeds(arm, without)
    return gateless.at(1.0 / gated.without_exits()[1]) if gated.runs else None


def _depth(arms: dict[str, ArmResult]) -> list[str]:
    """Layers run at entropy thresholds that mean the same for every arm."""
    lines = [
        "How deep texts go at one exit threshold (normalized entropy): layers run on average, and the metric.",
        "",
        "| arm |" + "".join(f" {threshold:g} |" for threshold in SHOWN_THRESHOLDS),
        "|---|" + "---|" * len(SHOWN_THRESHOLDS),
    ]
    for arm in sorted(arms.values(), key=_order):
        for curve in ("both", "gates off") if arm.curve != "patience" else ():
            if curve in arm.runs[0]["curves"]:
                name = f"{arm.name}, gates off" if curve != arm.curve else arm.name
                found = [arm.at_threshold(curve, threshold) for threshold in SHOWN_THRESHOLDS]
                cells = [f"{layers:.2f} ({100 * quality:.2f})" for quality, layers in found]
                lines.append("| " + " | ".join([name, *cells]) + " |")
    return lines


def _difference(one_r: NDArray[np.float64] | None, other_r: NDArray[np.float64] | None) -> str:
    if one_r is None or other_r is None:
        return "-"
    found = paired_difference(one_r, other_r)
    return f"{found.points:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def _conditions(arms: dict[str, ArmResult]) -> list[str]:
    """Every distinct set of conditions, and the settings of SmartBERT's first run."""
    runs = [run for arm in arms.values() for run in arm.runs]
    conditions = {
        f"Conditions: {made['device']}, {made['threads']} threads of {made['cores']} {made['machine']} cores a run, "
        f"training in {made['precision']}, measured in fp32; Python {made['python']}, torch {made['torch']}, "
        f"transformers {made['transformers']}; commit {made['code']}."
        for made in (run["conditions"] for run in runs)
    }
    first = next((run for run in runs if run["arm"] == "smartbert"), runs[0])
    settings = first["run"]["settings"]
    kept = ("stage1_epochs", "ungated_epochs", "soft_epochs", "stage2_epochs", "learning_rate", "head_learning_rate",
            "stage2_learning_rate", "gate_lambda", "target_layers", "eta1", "eta2", "joint_exits", "distillation",
            "head_query", "batch_size", "max_length")  # fmt: skip
    shown = ", ".join(f"{name} {settings[name]}" for name in kept)
    return [*sorted(conditions), "", f"Settings of {first['arm']}: {shown}."]
