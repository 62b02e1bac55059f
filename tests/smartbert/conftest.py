"""What the tests of the training side share: a fresh model, one padded batch, one real tiny training run."""

from __future__ import annotations

import copy
import gc
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from smartbert.configuration import SmartBertConfig
from smartbert.data.sources import DataSource
from smartbert.data.splits import TaskData, load_task
from smartbert.modeling import SmartBertForSequenceClassification
from smartbert.training.report import TrainingReport
from smartbert.training.settings import TrainingSettings
from smartbert.training.train import train
from smartbert_runtime.tokenizer import Tokens
from tests.conftest import LABELS, SENTENCES, make_model, make_tokenizer

Batch = dict[str, Tensor]

# The Trainer collects garbage at the end of each stage: the imported libraries' objects need not be looked through.
gc.freeze()

# High rates, so that a few dozen steps are enough for gates and exits to decide now this way, now that. Every field is
# given: another default changes no test.
TINY_SETTINGS = TrainingSettings(
    arm="smartbert",
    stage1_epochs=2,
    soft_epochs=1,
    ungated_epochs=0,
    stage2_epochs=1,
    gate_lambda=0.0,
    eta1=0.1,
    eta2=0.1,
    temperature1=0.5,
    temperature2=0.55,
    contrast_padding=False,
    target_layers=0.0,
    joint_exits=0.0,
    distillation=0.0,
    distillation_temperature=2.0,
    class_weights="none",
    learning_rate=2e-3,
    head_learning_rate=1e-2,
    stage2_learning_rate=2e-2,
    weight_decay=0.01,
    adam_epsilon=1e-8,
    warmup_steps=0,
    batch_size=4,
    gradient_accumulation_steps=1,
    mixed_precision="no",
    seed=7,
    max_length=24,
    head_width=16,
    gate_heads=2,
    exit_heads=4,
    head_query="first",
    pooling="mean",
    keep_layers=0,
    gate_bias=-0.3,
    metric="accuracy",
    validation_fraction=0.2,
    skip_threshold=0.5,
    max_disagreement=0.01,
    confidence=0.95,
)
# Sixty texts to train on, forty to report on: sentences in ones and twos, loud with an exclamation mark.
_PAIRS = [f"{SENTENCES[number]} {SENTENCES[number + 1]}" for number in range(22)]
TRAIN_TEXTS = [*SENTENCES, *_PAIRS, *(f"Well: {text}" for text in SENTENCES[:14])]
DEV_TEXTS = [
    *(f"Alice said: {text}" for text in SENTENCES),
    *(f"{SENTENCES[number]} {SENTENCES[number + 7]}" for number in range(16)),
]


def with_config(model: SmartBertForSequenceClassification, **changes: Any) -> SmartBertForSequenceClassification:
    """The same weights under a config with these `changes`; weights that it has no place for are left out, and
    those that it has beside them are as they were initialized.
    """
    config: SmartBertConfig = copy.deepcopy(model.config)
    for name, value in changes.items():
        setattr(config, name, value)
    other = SmartBertForSequenceClassification(config)
    other.eval()
    shapes = {name: tensor.shape for name, tensor in other.state_dict().items()}
    kept = {name: tensor for name, tensor in model.state_dict().items() if shapes.get(name) == tensor.shape}
    other.load_state_dict({**other.state_dict(), **kept})
    return other


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """A completed training run: its checkpoint folder, what it returned, and every line of its log.

    working_folders: copies of the working folder as it was at each line of the log, named by the line's number.
    """

    output: Path
    report: TrainingReport
    log: tuple[str, ...]
    working_folders: Path

    def interrupt_at(self, line: str, output: Path) -> None:
        """Leave for `output` what the run would have left if interrupted at the first line that begins so."""
        number = next(number for number, text in enumerate(self.log) if text.startswith(line))
        shutil.copytree(self.working_folders / str(number), output.with_name(f"{output.name}.partial"))


def train_in(folder: Path, encoder: Path, data: TaskData, settings: TrainingSettings) -> TrainedRun:
    """Train without a break, FOLDER/run/ckpt the output."""
    output, working_folders, lines = folder / "run" / "ckpt", folder / "working", list[str]()

    def log(line: str) -> None:
        shutil.copytree(output.with_name("ckpt.partial"), working_folders / str(len(lines)))
        lines.append(line)

    report = train(str(encoder), data, output, settings, log=log)
    return TrainedRun(output=output, report=report, log=tuple(lines), working_folders=working_folders)


def epochs(log: Sequence[str]) -> list[str]:
    """The epochs that a log reports: "stage 1: epoch 2", ..."""
    return [line.split("  ")[0] for line in log if "epoch" in line]


def differing_weights(one: Path, other: Path) -> list[str]:
    """Names of the weights of two checkpoints that are not bit-equal."""
    first, second = (load_file(checkpoint / "model.safetensors") for checkpoint in (one, other))
    assert list(first) == list(second)
    return [name for name in first if not torch.equal(first[name], second[name])]


@pytest.fixture
def fresh_model() -> SmartBertForSequenceClassification:
    """A new tiny model, for tests that train or change it."""
    return make_model()


@pytest.fixture(scope="session")
def batch() -> Batch:
    """All SENTENCES in one padded batch, label ids 0, 1, 2, 0, ...; read only."""
    encoded = make_tokenizer()(list(SENTENCES), truncation=True, max_length=24, padding=True, return_tensors="pt")
    labels = torch.arange(len(SENTENCES)) % len(LABELS)
    names = ("input_ids", "attention_mask", "token_type_ids")
    return {**{name: encoded[name] for name in names}, "labels": labels}


@pytest.fixture(scope="session")
def tokens(batch: Batch) -> Tokens:
    """The same batch as the runtime's Tokens."""
    return Tokens(
        input_ids_bs=batch["input_ids"].numpy(),
        attention_mask_bs=batch["attention_mask"].numpy(),
        token_type_ids_bs=batch["token_type_ids"].numpy(),
        truncated=(False,) * len(SENTENCES),
    )


@pytest.fixture(scope="session")
def task_data(tmp_path_factory: pytest.TempPathFactory) -> TaskData:
    """TRAIN_TEXTS and DEV_TEXTS, read from tsv files as a user's are."""
    folder = tmp_path_factory.mktemp("texts")
    for name, texts in (("train", TRAIN_TEXTS), ("dev", DEV_TEXTS)):
        lines = ["text\tlabel", *(f"{text}\t{'loud' if '!' in text else 'calm'}" for text in texts)]
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    source = DataSource(train_file=folder / "train.tsv", dev_file=folder / "dev.tsv")
    return load_task(source, validation_fraction=TINY_SETTINGS.validation_fraction, seed=TINY_SETTINGS.seed)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, encoder_dir: Path, task_data: TaskData) -> TrainedRun:
    """One unbroken run with TINY_SETTINGS; read only."""
    return train_in(tmp_path_factory.mktemp("trained"), encoder_dir, task_data, TINY_SETTINGS)
