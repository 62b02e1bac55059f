"""Both training stages on transformers.Trainer, from a pretrained encoder and labelled texts to a checkpoint folder."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import transformers
from accelerate import PartialState
from datasets import Dataset
from torch import nn
from transformers import (
    AutoTokenizer,
    DataCollatorWithPadding,
    EvalPrediction,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

from smartbert.data import Split, TaskData
from smartbert.evaluation import (
    CurvePoint,
    Recording,
    Summary,
    ThresholdChoice,
    choose_exit_threshold,
    curve,
    summarise,
)
from smartbert.modeling import SmartBertForSequenceClassification
from smartbert.objectives import Objective, Stage1, Stage2
from smartbert.progress import Progress, Say
from smartbert.settings import TrainingSettings
from smartbert.staging import check_target, staged_folder
from smartbert_runtime.errors import ConfigError, InputError
from smartbert_runtime.policy import Policy

REPORT_FILE = "training_report.json"
GOLDEN_TEXTS_FILE = "golden_texts.jsonl"
GOLDEN_TEXTS = 32


@dataclass(frozen=True, kw_only=True)
class TrainingReport:
    """What a run did; the two summaries of `dev` differ only in exits: never, and at the chosen threshold."""

    base_model: str
    settings: TrainingSettings
    versions: dict[str, str]
    texts: dict[str, int]
    labels: tuple[str, ...]
    skip_threshold: float
    exit_threshold: float
    exit_threshold_choice: ThresholdChoice
    validation: Summary
    dev: Summary
    dev_full_depth: Summary
    dev_curve: tuple[CurvePoint, ...]
    stage1_log: tuple[dict[str, float], ...]
    stage2_log: tuple[dict[str, float], ...]


class StageTrainer(Trainer):
    """A Trainer with one learning rate for the backbone and one for everything else."""

    def __init__(self, objective: Objective, *, backbone_rate: float, head_rate: float, **options: Any) -> None:
        self.objective: Objective = objective
        self.backbone_rate, self.head_rate = backbone_rate, head_rate
        super().__init__(model=objective, **options)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW over the trainable parameters; biases and LayerNorms are not decayed."""
        if self.optimizer is None:
            groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
            for name, parameter in self.objective.named_parameters():
                if parameter.requires_grad:
                    key = name.startswith("model.backbone."), parameter.ndim > 1
                    groups.setdefault(key, []).append(parameter)
            self.optimizer = torch.optim.AdamW(
                [
                    {
                        "params": parameters,
                        "lr": self.backbone_rate if backbone else self.head_rate,
                        "weight_decay": self.args.weight_decay if matrix else 0.0,
                    }
                    for (backbone, matrix), parameters in sorted(groups.items(), key=lambda item: item[0])
                ],
                eps=self.args.adam_epsilon,
                fused=True,
            )
        return self.optimizer


class SoftThenHard(TrainerCallback):
    """Switches stage 1 from soft to hard gate weights; counts steps, so a resumed run switches at the same one."""

    def __init__(self, objective: Stage1, *, soft_share: float) -> None:
        self.objective, self.soft_share = objective, soft_share

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Hard once the soft epochs' share of all steps is done."""
        self.objective.hard = state.global_step >= round(self.soft_share * state.max_steps)


def train(
    model: str,
    data: TaskData,
    output: Path,
    settings: TrainingSettings,
    *,
    resume: bool = False,
    overwrite: bool = False,
    bar: bool = False,
    say: Say = lambda line: None,
) -> TrainingReport:
    """Train both stages and write the checkpoint folder `output`, whole or not at all.

    model: hub name or folder of a pretrained encoder.
    resume: go on from the last epoch that an interrupted run left in `OUTPUT.partial`.
    Raises ConfigError for an encoder or setting that cannot be used, InputError for the output folder.
    """
    check_target(output, overwrite=overwrite)
    work = output.parent / f"{output.name}.partial"
    process = PartialState()  # one of several under torchrun: the main one alone writes outside the Trainer
    if process.is_main_process:
        _check_work(work, {"model": model, "settings": asdict(settings), "labels": list(data.labels)}, resume=resume)
    process.wait_for_everyone()
    set_seed(settings.seed)
    smart = SmartBertForSequenceClassification.from_backbone(
        model,
        id2label=dict(enumerate(data.labels)),
        label2id={label: number for number, label in enumerate(data.labels)},
        **settings.model_settings(),
    )
    tokenizer = load_tokenizer(model)
    splits = {
        name: _tokenize(split, tokenizer, settings.max_length)
        for name, split in (("train", data.train), ("validation", data.validation), ("dev", data.dev))
    }
    say(
        f"{model}: {smart.config.layers} layers; {len(data.train)} texts to train on, "
        f"{len(data.validation)} to choose with, {len(data.dev)} to report on"
    )
    stage1_log = _run_stage(1, smart, splits, tokenizer, settings, work, bar=bar, say=say)
    stage2_log = _run_stage(2, smart, splits, tokenizer, settings, work, bar=bar, say=say)

    recordings = {name: _record(smart, splits[name], tokenizer, settings, work) for name in ("validation", "dev")}
    choice = choose_exit_threshold(
        recordings["validation"],
        settings.skip_threshold,
        max_disagreement=settings.max_disagreement,
        confidence=settings.confidence,
    )
    _say_choice(choice, settings, say)
    smart.config.exit_threshold = choice.exit_threshold
    policy = Policy(skip_threshold=settings.skip_threshold, exit_threshold=smart.config.exit_threshold)
    full_depth = dataclasses.replace(policy, exit_threshold=0.0)
    report = TrainingReport(
        base_model=Path(model).name,
        settings=settings,
        versions={"torch": torch.__version__, "transformers": transformers.__version__},
        texts={name: len(split) for name, split in splits.items()},
        labels=data.labels,
        skip_threshold=policy.skip_threshold,
        exit_threshold=policy.exit_threshold,
        exit_threshold_choice=choice,
        validation=summarise(recordings["validation"], policy, data.labels),
        dev=summarise(recordings["dev"], policy, data.labels),
        dev_full_depth=summarise(recordings["dev"], full_depth, data.labels),
        dev_curve=curve(recordings["dev"], settings.skip_threshold),
        stage1_log=stage1_log,
        stage2_log=stage2_log,
    )
    if process.is_main_process:
        with staged_folder(output, overwrite=overwrite) as staging:
            smart.save_pretrained(staging)
            tokenizer.save_pretrained(staging)
            (staging / REPORT_FILE).write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")
            _write_golden_texts(staging / GOLDEN_TEXTS_FILE, data.dev, splits["dev"])
        shutil.rmtree(work)
    return report


def load_tokenizer(model: str) -> PreTrainedTokenizerFast:
    """The encoder's fast tokenizer; ConfigError when it has only a slow one, which no device can run."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as err:
        raise ConfigError(
            f"the tokenizer of {model!r} cannot be loaded: {str(err).strip().splitlines()[0]}",
            hint="the folder needs tokenizer.json, or a vocabulary that transformers can convert",
        ) from err
    if not tokenizer.is_fast:
        raise ConfigError(f"{model!r} has no fast tokenizer", hint="save one: tokenizer.json beside the weights")
    # Our own batches are padded and cut here; the saved file must not bring settings of its own.
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    return cast(PreTrainedTokenizerFast, tokenizer)


def _say_choice(choice: ThresholdChoice, settings: TrainingSettings, say: Say) -> None:
    kept = f"changes the answer of {choice.changed} of {choice.texts} validation texts"
    if choice.certain:
        sure = f"at most {settings.max_disagreement:.1%} of new texts at {settings.confidence:.0%} confidence"
    else:
        sure = f"too few texts to vouch for {settings.max_disagreement:.1%}, so the largest that changes none"
    say(f"exit threshold {choice.exit_threshold:.2f} {kept}: {sure}")


def _check_work(work: Path, identity: Mapping[str, Any], *, resume: bool) -> None:
    """Begin a working folder, or, to resume, see that it belongs to the same run."""
    note = work / "run.json"
    if not resume:
        if work.exists() and not note.exists():
            raise InputError(f"{work} is in the way", hint="move it: the run keeps its working files there")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        note.write_text(json.dumps(identity), encoding="utf-8")
        return
    if not note.exists():
        raise InputError(f"there is nothing to resume in {work}", hint="start without --resume")
    if json.loads(note.read_text(encoding="utf-8")) != json.loads(json.dumps(identity)):
        raise InputError(
            f"{work} was begun with another model, other labels or other settings",
            hint="repeat the first command with --resume added, or start anew without it",
        )


def _tokenize(split: Split, tokenizer: PreTrainedTokenizerFast, max_length: int) -> Dataset:
    pairs = list(split.pairs) if split.pairs is not None else None
    encoded = tokenizer(list(split.texts), pairs, truncation=True, max_length=max_length)
    columns = {name: encoded[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in encoded}
    return Dataset.from_dict({**columns, "labels": list(split.label_ids)})


def _run_stage(
    stage: int,
    smart: SmartBertForSequenceClassification,
    splits: Mapping[str, Dataset],
    tokenizer: PreTrainedTokenizerFast,
    settings: TrainingSettings,
    work: Path,
    *,
    bar: bool,
    say: Say,
) -> tuple[dict[str, float], ...]:
    """Train one stage to its end, from its last saved epoch if there is one; the log of its epochs."""
    folder = work / f"stage{stage}"
    objective = Stage1(smart, settings) if stage == 1 else Stage2(smart, settings)
    head_rate = settings.head_learning_rate if stage == 1 else settings.stage2_learning_rate
    trainer = StageTrainer(
        objective,
        backbone_rate=settings.learning_rate,
        head_rate=head_rate,
        args=_arguments(stage, settings, folder),
        train_dataset=splits["train"],
        eval_dataset=splits["validation"],
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=_metrics,
        callbacks=[Progress(f"stage {stage}", say, bar=bar)],
    )
    for printer in (transformers.PrinterCallback, transformers.trainer_callback.ProgressCallback):
        trainer.remove_callback(printer)
    if isinstance(objective, Stage1):
        trainer.add_callback(SoftThenHard(objective, soft_share=settings.soft_epochs / settings.stage1_epochs))
    last = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    trainer.train(resume_from_checkpoint=last)
    objective.requires_grad_(True)
    return tuple(entry for entry in trainer.state.log_history if "eval_accuracy" in entry)


def _arguments(stage: int, settings: TrainingSettings, folder: Path) -> TrainingArguments:
    # transformers 5 renamed the option that puts texts of like length into one batch.
    names = {item.name for item in dataclasses.fields(TrainingArguments)}
    by_length = (
        {"group_by_length": True} if "group_by_length" in names else {"train_sampling_strategy": "group_by_length"}
    )
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=settings.stage1_epochs if stage == 1 else settings.stage2_epochs,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        weight_decay=settings.weight_decay,
        adam_epsilon=settings.adam_epsilon,
        warmup_steps=settings.warmup_steps,
        bf16=settings.bf16,
        seed=settings.seed,
        logging_steps=10,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        # The best epoch of stage 1 is kept; stage 2 ends with its last.
        load_best_model_at_end=stage == 1,
        metric_for_best_model="accuracy",
        label_names=["labels"],
        remove_unused_columns=False,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        **by_length,
    )


def _metrics(prediction: EvalPrediction) -> dict[str, float]:
    """At full depth (gates on, exits off): accuracy and layers run; skip rate and head accuracy layer by layer."""
    recording = _as_recording(prediction.predictions, prediction.label_ids)
    summary = summarise(recording, Policy(skip_threshold=0.5), ())
    return {
        "accuracy": summary.accuracy,
        "layers_run": summary.mean_layers_run,
        **{f"skip_rate_{layer:02d}": rate for layer, rate in enumerate(summary.skip_rate, start=1)},
        **{f"exit_accuracy_{layer:02d}": right for layer, right in enumerate(summary.exit_accuracy, start=1)},
    }


def _record(
    smart: SmartBertForSequenceClassification,
    split: Dataset,
    tokenizer: PreTrainedTokenizerFast,
    settings: TrainingSettings,
    work: Path,
) -> Recording:
    trainer = Trainer(
        model=Objective(smart, settings),
        args=_arguments(2, settings, work / "record"),
        eval_dataset=split,
        data_collator=DataCollatorWithPadding(tokenizer),
    )
    trainer.remove_callback(transformers.PrinterCallback)
    output = trainer.predict(split)
    return _as_recording(output.predictions, output.label_ids)


def _as_recording(predictions: Any, label_ids: Any) -> Recording:
    skip_logits_rl, logits_rlc = predictions
    return Recording(skip_logits_rl=skip_logits_rl, logits_rlc=logits_rlc, label_ids_r=np.asarray(label_ids))


def _write_golden_texts(file: Path, dev: Split, tokens: Dataset) -> None:
    """GOLDEN_TEXTS dev texts from the shortest to the longest, evenly spread: the package replays them."""
    by_length = sorted(range(len(dev)), key=lambda row: (len(tokens[row]["input_ids"]), row))
    places = np.linspace(0, len(by_length) - 1, min(GOLDEN_TEXTS, len(by_length))).round().astype(int)
    with file.open("w", encoding="utf-8") as stream:
        for row in (by_length[place] for place in places):
            pair = {"text_pair": dev.pairs[row]} if dev.pairs is not None else {}
            stream.write(json.dumps({"text": dev.texts[row], **pair}, ensure_ascii=False) + "\n")
