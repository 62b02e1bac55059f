"""What a training step costs: SmartBERT's stages against plain fine-tuning of the same encoder, in one run."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import DataCollatorWithPadding

from smartbert.backbones import read_backbone_config
from smartbert.checkpoint_folder import load_tokenizer
from smartbert.data.splits import TaskData
from smartbert.evaluation.recording import token_counts, tokenize
from smartbert.modeling import SmartBertForSequenceClassification
from smartbert.plain_classifier import PlainClassifier
from smartbert.training.objectives import Objective, Phase, PlainFineTuning, Stage1, Stage2
from smartbert.training.settings import TrainingSettings
from smartbert.training.stage_trainer import make_optimizer


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """Median seconds of a whole step (forward, backward, clipping, AdamW), and its ratio to plain fine-tuning.

    The ratio is the median over steps of the ratio on the same batch; low and high are its quartiles.
    """

    name: str
    median_s: float
    ratio: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """The costs of all kinds of steps, and their conditions."""

    costs: tuple[StepCost, ...]
    conditions: str


def time_steps(model: str, data: TaskData, settings: TrainingSettings, *, steps: int = 30) -> StepReport:
    """Time `steps` steps of each kind, in turns on the same batches of real texts of similar length."""
    tokenizer = load_tokenizer(model, vocab_size=int(read_backbone_config(model)["vocab_size"]))
    objectives = make_objectives(model, data.labels, settings)
    optimizers = {name: make_optimizer(objective, settings, 1e-5, 1e-5) for name, objective in objectives.items()}
    batches, tokens = _batches(data, tokenizer, settings, steps)
    bf16 = settings.mixed_precision == "bf16"
    seconds: dict[str, list[float]] = {name: [] for name in objectives}
    for number, batch in enumerate([batches[0], *batches]):
        for name, objective in objectives.items():
            taken = _time_step(objective, optimizers[name], batch, bf16=bf16)
            if number:  # the first round warms up
                seconds[name].append(taken)
    precision = "bf16" if bf16 else "fp32"
    conditions = (
        f"{steps} steps of {settings.batch_size} texts of similar length, {tokens:.1f} tokens on average with padding; "
        f"{precision}; {torch.get_num_threads()} threads of {os.cpu_count()} {platform.machine()} cores, load "
        f"{os.getloadavg()[0]:.1f}; torch {torch.__version__}"
    )
    costs = tuple(_cost(name, taken, seconds["plain"]) for name, taken in seconds.items())
    return StepReport(costs=costs, conditions=conditions)


def make_objectives(model: str, labels: Sequence[str], settings: TrainingSettings) -> dict[str, Objective]:
    """Plain fine-tuning, the three phases of stage 1 and stage 2, each with its own model."""
    names: dict[str, Any] = {"id2label": dict(enumerate(labels))}

    def smart() -> SmartBertForSequenceClassification:
        return SmartBertForSequenceClassification.from_backbone(model, **names, **settings.model_settings())

    plain = PlainClassifier.from_backbone(model, pooling="mean", max_input_length=settings.max_length, **names)
    objectives: dict[str, Objective] = {"plain": PlainFineTuning(plain, settings)}
    for phase in Phase:
        stage1 = Stage1(smart(), settings)
        stage1.phase = phase
        objectives[f"stage 1, {phase.value}"] = stage1
    objectives["stage 2"] = Stage2(smart(), settings)
    return objectives


def _batches(
    data: TaskData, tokenizer: Any, settings: TrainingSettings, count: int
) -> tuple[list[dict[str, torch.Tensor]], float]:
    """Batches across the whole range of the training texts' lengths, and their mean padded length."""
    split = tokenize(data.train, tokenizer, settings.max_length)
    order = np.argsort(token_counts(split), kind="stable")
    starts = np.linspace(0, max(0, len(order) - settings.batch_size), count).astype(int)
    collate = DataCollatorWithPadding(tokenizer)
    batches = [
        dict(collate([dict(row) for row in split.select(order[start : start + settings.batch_size])]))
        for start in starts.tolist()
    ]
    np.random.default_rng(0).shuffle(batches)
    return batches, statistics.mean(batch["input_ids"].shape[1] for batch in batches)


def _time_step(
    objective: Objective, optimizer: torch.optim.Optimizer, batch: dict[str, torch.Tensor], *, bf16: bool
) -> float:
    objective.train()
    began = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        loss = objective(**batch)["loss"]
    loss.backward()
    torch.nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return time.perf_counter() - began


def _cost(name: str, seconds: Sequence[float], plain: Sequence[float]) -> StepCost:
    ratios = [ours / theirs for ours, theirs in zip(seconds, plain, strict=True)]
    low, ratio, high = statistics.quantiles(ratios, n=4)
    return StepCost(name=name, median_s=statistics.median(seconds), ratio=ratio, low=low, high=high)
