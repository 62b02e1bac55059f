"""What deciding saves on labelled texts: one package, its policy against every layer run, in turns, batch 1."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnxruntime

from smartbert_runtime.classifier import DEFAULT_PRESET, Prediction, SmartBert
from smartbert_runtime.errors import ConfigError, InputError
from smartbert_runtime.policy import Policy
from smartbert_runtime.records import Examples


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Where and how it was measured."""

    texts: int
    mean_tokens: float
    repeats: int
    batch_size: int
    threads: int
    variant: str
    providers: tuple[str, ...]
    onnxruntime: str
    python: str
    machine: str
    cores: int
    load_average: float | None


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One way of running: quality, depth, and milliseconds a text with tokenizing."""

    name: str
    accuracy: float
    recall: dict[str, float]
    mean_layers_run: float
    median_ms: float
    mean_ms: float
    p95_ms: float


@dataclass(frozen=True, kw_only=True)
class BenchReport:
    """`speedup_*`: full depth's time over the policy's; the spread is over the passes."""

    conditions: Conditions
    policy: Figures
    full_depth: Figures
    layers: int
    speedup_median: float
    speedup_mean: float
    speedup_mean_spread: tuple[float, float]


def bench(
    model: SmartBert,
    examples: Examples,
    *,
    preset: str = DEFAULT_PRESET,
    repeats: int = 3,
    on_pass: Callable[[str], None] = lambda name: None,
) -> BenchReport:
    """Classify every text `repeats` times each way, one text at a time, the two ways taking turns on each text.

    A text counts with its median over the passes. Raises InputError for a label that the model does not know.
    """
    if repeats < 1:
        raise ConfigError(f"repeats must be 1 or more, not {repeats}", hint="change --repeats")
    _check_labels(model, examples)
    policies = {preset: model.policy(preset), "full depth": model.policy(preset).without_shortcuts()}
    on_pass("warming up")
    for policy in policies.values():
        _time_one(model, examples, 0, policy)
        model.classify(examples.texts[:8], text_pairs=examples.pairs[:8] if examples.pairs else None, policy=policy)
    times = {name: np.zeros((repeats, len(examples))) for name in policies}
    predictions: dict[str, list[Prediction]] = {name: [] for name in policies}
    for number in range(repeats):
        on_pass(f"pass {number + 1} of {repeats}: {len(examples)} texts, each way in turn")
        for row in range(len(examples)):
            # Which way goes first alternates, so that neither always finds the warmer cache.
            for name in sorted(policies, reverse=bool((row + number) % 2)):
                prediction, times[name][number, row] = _time_one(model, examples, row, policies[name])
                if number == 0:
                    predictions[name].append(prediction)
    ratios = sorted(times["full depth"].mean(axis=1) / times[preset].mean(axis=1))
    quick, full = (
        _figures(name, examples, predictions[name], np.median(times[name], axis=0).tolist()) for name in policies
    )
    return BenchReport(
        conditions=_conditions(model, examples, repeats),
        policy=quick,
        full_depth=full,
        layers=model.package.manifest.model.layers,
        speedup_median=full.median_ms / quick.median_ms,
        speedup_mean=full.mean_ms / quick.mean_ms,
        speedup_mean_spread=(float(ratios[0]), float(ratios[-1])),
    )


def _time_one(model: SmartBert, examples: Examples, row: int, policy: Policy) -> tuple[Prediction, float]:
    pair = [examples.pairs[row]] if examples.pairs else None
    started = time.perf_counter()
    (prediction,) = model.classify([examples.texts[row]], text_pairs=pair, policy=policy)
    return prediction, (time.perf_counter() - started) * 1000.0


def _check_labels(model: SmartBert, examples: Examples) -> None:
    if examples.labels is None:
        raise InputError(f"{examples.source} was read without its labels", hint="name the label column")
    for label, line in zip(examples.labels, examples.lines, strict=True):
        if label not in model.labels:
            raise InputError(
                f"{examples.source}, line {line}: the model has no label {label!r}",
                hint="its labels: " + ", ".join(model.labels),
            )


def _figures(name: str, examples: Examples, predictions: list[Prediction], times_ms: list[float]) -> Figures:
    labels = examples.labels or ()
    right = [prediction.label == label for prediction, label in zip(predictions, labels, strict=True)]
    recall = {
        label: statistics.fmean(hit for hit, own in zip(right, labels, strict=True) if own == label)
        for label in sorted(set(labels))
    }
    return Figures(
        name=name,
        accuracy=statistics.fmean(right),
        recall=recall,
        mean_layers_run=statistics.fmean(len(prediction.layers_run) for prediction in predictions),
        median_ms=statistics.median(times_ms),
        mean_ms=statistics.fmean(times_ms),
        p95_ms=float(np.percentile(times_ms, 95)),
    )


def _conditions(model: SmartBert, examples: Examples, repeats: int) -> Conditions:
    tokens = model.tokenizer.encode(examples.texts, examples.pairs)
    return Conditions(
        texts=len(examples),
        mean_tokens=float(tokens.attention_mask_bs.sum(axis=1).mean()),
        repeats=repeats,
        batch_size=1,
        threads=model.sessions.threads,
        variant=model.sessions.variant.name,
        providers=model.sessions.providers,
        onnxruntime=onnxruntime.__version__,
        python=platform.python_version(),
        machine=platform.machine(),
        cores=os.cpu_count() or 1,
        load_average=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    )
