"""train.py on a tiny encoder and real sentences: the checkpoint, the report and the golden texts of one run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, BertModel, TrainerControl, TrainerState, TrainingArguments

from smartbert.activations.ranges import RANGES_FILE, read_ranges
from smartbert.checkpoint_folder import load_tokenizer
from smartbert.data.splits import TaskData
from smartbert.modeling import SmartBertForSequenceClassification
from smartbert.training.objectives import Phase, Stage1, Stage2
from smartbert.training.stage_trainer import StageTrainer
from smartbert.training.stages import Phases
from smartbert.training.train import train
from smartbert_runtime.errors import ConfigError
from smartbert_runtime.text_files.examples import read_examples
from tests.conftest import LAYERS, make_encoder_config, make_tokenizer
from tests.smartbert.conftest import (
    DEV_TEXTS,
    TINY_SETTINGS,
    TRAIN_TEXTS,
    TrainedRun,
    differing_weights,
    epochs,
    train_in,
)


def _rates(entry: dict[str, float], name: str) -> list[float]:
    return [entry[f"eval_{name}_{layer:02d}"] for layer in range(1, LAYERS + 1)]


def test_checkpoint_is_complete(trained: TrainedRun) -> None:
    names = {file.name for file in trained.output.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "training_report.json"} <= names
    assert "golden_texts.jsonl" in names and "check_texts.jsonl" not in names, "no other texts unless they are wanted"
    assert not [name for name in names if name.endswith((".bin", ".pt"))]
    assert [file.name for file in trained.output.parent.iterdir()] == ["ckpt"]  # no ckpt.partial, no staging folder


def test_checkpoint_carries_thresholds(trained: TrainedRun, encoder_dir: Path) -> None:
    model = SmartBertForSequenceClassification.from_pretrained(trained.output)
    assert model.config.id2label == {0: "calm", 1: "loud"}
    assert model.config.max_input_length == 24
    assert model.config.exit_threshold == trained.report.exit_threshold
    assert model.config.skip_threshold == 0.5
    ours, theirs = (AutoTokenizer.from_pretrained(folder) for folder in (trained.output, encoder_dir))
    assert ours(DEV_TEXTS)["input_ids"] == theirs(DEV_TEXTS)["input_ids"]
    assert not [name for name in model.state_dict() if "contrast" in name]


def test_checkpoint_carries_activation_ranges(trained: TrainedRun) -> None:
    """Of all training texts, which are fewer than would be drawn; histograms, and nothing else of them."""
    ranges = read_ranges(trained.output)
    assert ranges is not None and ranges.texts == trained.report.texts["train"]
    assert {f"hidden_{layer:02d}" for layer in range(LAYERS + 1)} < set(ranges.points)
    stored = (trained.output / RANGES_FILE).read_text(encoding="utf-8")
    assert not any(text in stored for text in TRAIN_TEXTS)


def test_every_layer_and_gate_moved(trained: TrainedRun, encoder_dir: Path) -> None:
    before = load_file(encoder_dir / "model.safetensors")
    after = load_file(trained.output / "model.safetensors")
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}.output.dense.weight"
        assert (after[f"backbone.{name}"] - before[name]).abs().max() > 1e-3
        assert abs(after[f"gates.{layer}.decide.bias"].item() - TINY_SETTINGS.gate_bias) > 1e-3


def test_report_on_disk_is_returned(trained: TrainedRun) -> None:
    stored = json.loads((trained.output / "training_report.json").read_text(encoding="utf-8"))
    assert stored == json.loads(json.dumps(asdict(trained.report)))
    assert stored["settings"]["stage1_epochs"] == 2
    assert stored["labels"] == ["calm", "loud"]
    assert set(stored["versions"]) >= {"torch", "transformers"}


def test_report_logs_each_epoch(trained: TrainedRun, task_data: TaskData) -> None:
    report = trained.report
    kept_back = len(task_data.validation)
    assert report.texts == {"train": len(TRAIN_TEXTS) - kept_back, "validation": kept_back, "dev": 40}
    assert [entry["epoch"] for entry in report.stage1_log] == [1.0, 2.0]
    assert [entry["epoch"] for entry in report.stage2_log] == [1.0]
    for entry in (*report.stage1_log, *report.stage2_log):
        # Exits never fire there, so every text meets every layer: what is not skipped is run.
        assert entry["eval_layers_run"] == pytest.approx(LAYERS - sum(_rates(entry, "skip_rate")))
        assert entry["eval_accuracy"] == pytest.approx(_rates(entry, "exit_accuracy")[-1])
        assert all(0.0 <= rate <= 1.0 for rate in _rates(entry, "skip_rate") + _rates(entry, "exit_accuracy"))
    assert 0.0 < report.stage2_log[0]["eval_layers_run"] < LAYERS  # the gates have begun to decide


def test_report_is_consistent(trained: TrainedRun) -> None:
    report = trained.report
    assert report.dev.texts == report.dev_full_depth.texts == 40
    assert report.dev_full_depth.exit_rate == (0.0, 0.0, 0.0, 1.0)
    evaluation = report.dev_evaluation
    assert (evaluation.summary, evaluation.full_depth) == (report.dev, report.dev_full_depth)
    assert (evaluation.texts, evaluation.layers) == (40, LAYERS)
    assert evaluation.exit_threshold == report.exit_threshold
    points = evaluation.curves["both"]
    assert points[0].value == 0.0
    assert (points[0].accuracy, points[0].f1) == (report.dev_full_depth.accuracy, report.dev_full_depth.f1)
    assert points[0].mean_layers_run == report.dev_full_depth.mean_layers_run
    # A larger threshold exits earlier: the chosen one lies between the points on both sides of it.
    below = [point for point in points if point.value <= report.exit_threshold][-1]
    above = next(point for point in points if point.value >= report.exit_threshold)
    assert below.mean_layers_run >= report.dev.mean_layers_run >= above.mean_layers_run
    assert below.macs >= evaluation.macs >= above.macs
    choice = report.exit_threshold_choice
    assert choice is not None
    assert choice.exit_threshold == report.exit_threshold
    assert (choice.certain, choice.changed) == (False, 0)  # a dozen texts cannot vouch for 1 %


def test_report_matches_checkpoint(trained: TrainedRun, task_data: TaskData) -> None:
    # The saved model, evaluated anew, is as accurate as reported, with early exits and without.
    model = SmartBertForSequenceClassification.from_pretrained(trained.output)
    tokenizer = AutoTokenizer.from_pretrained(trained.output)
    inputs = tokenizer(DEV_TEXTS, truncation=True, max_length=24, padding=True, return_tensors="pt")
    labels_b = torch.tensor(task_data.dev.label_ids)
    for threshold, summary in (
        (trained.report.exit_threshold, trained.report.dev),
        (0.0, trained.report.dev_full_depth),
    ):
        model.config.exit_threshold = threshold
        with torch.no_grad():
            right_b = model(**inputs).logits.argmax(-1) == labels_b
        assert summary.accuracy == pytest.approx(right_b.float().mean().item())


def test_stage_2_keeps_stage_1(trained: TrainedRun) -> None:
    # Full-depth accuracy and skip rates at the end are those of the stage-1 epoch that was kept: its best.
    best = max(trained.report.stage1_log, key=lambda entry: entry["eval_accuracy"])
    last = trained.report.stage2_log[-1]
    assert last["eval_accuracy"] == best["eval_accuracy"]
    assert _rates(last, "skip_rate") == _rates(best, "skip_rate")


def test_first_of_equal_epochs_is_kept(encoder_dir: Path, task_data: TaskData, tmp_path: Path) -> None:
    # At this rate no answer changes, so both epochs are equally good, but the gates' biases can be followed: lambda / G
    # always pulls them one way, by the rate itself a step (AdamW), the rate falling to 0 over 2 x 12 steps.
    # After epoch 1: 1e-6 x (24 + 23 + ... + 13) / 24 = 9.25e-6; after epoch 2 it would be 12.5e-6.
    assert len(task_data.train) == 48
    rates = replace(TINY_SETTINGS, learning_rate=0.0, head_learning_rate=1e-6, gate_lambda=10.0, eta1=0.0)
    report = train(str(encoder_dir), task_data, tmp_path / "ckpt", rates)
    first, second = report.stage1_log
    assert first["eval_accuracy"] == second["eval_accuracy"]
    stored = load_file(tmp_path / "ckpt" / "model.safetensors")
    moved = [stored[f"gates.{layer}.decide.bias"].item() - rates.gate_bias for layer in range(LAYERS)]
    assert moved == pytest.approx([9.25e-6] * LAYERS, rel=0.05)


def test_golden_texts_span_all_lengths(trained: TrainedRun) -> None:
    lines = (trained.output / "golden_texts.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    tokenizer = load_tokenizer(str(trained.output), vocab_size=len(make_tokenizer()))

    def length(text: str) -> int:
        return min(len(tokenizer(text)["input_ids"]), 24)

    lengths, every = [length(text) for text in texts], [length(text) for text in DEV_TEXTS]
    assert len(texts) == len(set(texts)) == 32
    assert set(texts) <= set(DEV_TEXTS)
    assert lengths == sorted(lengths)
    assert (lengths[0], lengths[-1]) == (min(every), max(every))
    assert lengths[0] < lengths[16] < lengths[-1]  # evenly spread, not all from one end
    assert abs(sum(lengths) / 32 - sum(every) / 40) < 1.0


def test_log_of_a_run(trained: TrainedRun, task_data: TaskData) -> None:
    kept_back = len(task_data.validation)
    assert f"4 layers; {60 - kept_back} texts to train on, {kept_back} to choose with, 40 to" in trained.log[2]
    assert epochs(trained.log) == ["stage 1: epoch 1", "stage 1: epoch 2", "stage 2: epoch 1"]
    assert "layers run" in trained.log[3] and "skip rate [" in trained.log[3] and "exit accuracy [" in trained.log[3]
    chosen = trained.report.exit_threshold
    assert trained.log[-1].startswith(f"exit threshold {chosen:.4g} changes the answer of 0 of {kept_back}")


def test_logged_skip_rates_follow_threshold(encoder_dir: Path, task_data: TaskData, tmp_path: Path) -> None:
    # At rate 0 the gates stay near sigmoid(-3) = 0.05: at threshold 0.005 every layer is skipped, and so logged.
    still = replace(TINY_SETTINGS, learning_rate=0.0, head_learning_rate=0.0, gate_bias=-3.0, stage1_epochs=1)
    report = train(str(encoder_dir), task_data, tmp_path / "ckpt", replace(still, skip_threshold=0.005, keep_texts=5))
    kept = read_examples(tmp_path / "ckpt" / "check_texts.jsonl", labeled=True)
    assert kept.texts == task_data.validation.texts[:5] and kept.labels is not None
    assert [task_data.labels.index(label) for label in kept.labels] == list(task_data.validation.label_ids[:5])
    assert report.dev_full_depth.skip_rate == (1.0, 1.0, 1.0, 1.0)
    assert report.dev_full_depth.mean_layers_run == 0.0
    assert _rates(report.stage1_log[0], "skip_rate") == [1.0] * LAYERS
    assert report.stage1_log[0]["eval_layers_run"] == 0.0


@pytest.mark.parametrize("stage", [Stage1, Stage2])
def test_learning_rates_and_decay(
    fresh_model: SmartBertForSequenceClassification, tmp_path: Path, stage: type[Stage1] | type[Stage2]
) -> None:
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to=[])
    objective = stage(fresh_model, replace(TINY_SETTINGS, weight_decay=0.25, adam_epsilon=1e-7))
    trainer = StageTrainer(objective, backbone_rate=0.5, head_rate=2.0, args=arguments)
    groups = trainer.create_optimizer().param_groups
    given = {id(parameter): group for group in groups for parameter in group["params"]}
    names = dict(objective.named_parameters())
    assert set(given) == {id(parameter) for parameter in names.values() if parameter.requires_grad}
    shown = {name: given[id(names[name])] for name in names if id(names[name]) in given}
    rates = {name: (group["lr"], group["weight_decay"], group["eps"]) for name, group in shown.items()}
    if stage is Stage1:
        layer = "model.backbone.encoder.layer.2.output"
        assert rates[f"{layer}.dense.weight"] == (0.5, 0.25, 1e-7)
        assert rates[f"{layer}.dense.bias"] == rates[f"{layer}.LayerNorm.weight"] == (0.5, 0.0, 1e-7)
        assert rates["model.gates.0.decide.weight"] == rates["model.exits.3.classify.weight"] == (2.0, 0.25, 1e-7)
        assert rates["model.gates.0.decide.bias"] == (2.0, 0.0, 1e-7)
        assert "model.exits.2.classify.weight" not in rates
    else:
        assert {name.split(".")[1] for name in rates if name.startswith("model.")} == {"exits"}
        assert rates["model.exits.2.classify.weight"] == (2.0, 0.25, 1e-7)
        assert rates["model.exits.2.classify.bias"] == (2.0, 0.0, 1e-7)
        assert "model.exits.3.classify.weight" not in rates
    assert rates["contrast.0.layers.0.weight"] == (2.0, 0.25, 1e-7)


def test_phases_of_stage_1(fresh_model: SmartBertForSequenceClassification, tmp_path: Path) -> None:
    objective = Stage1(fresh_model, TINY_SETTINGS)
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to=[])

    def phases(*, epochs: int, ungated: int, soft: int) -> str:
        """U, S or H for each of ten steps."""
        settings = replace(TINY_SETTINGS, stage1_epochs=epochs, ungated_epochs=ungated, soft_epochs=soft)
        switch, seen = Phases(objective, settings), ""
        for step in range(10):  # steps done before this one
            switch.on_step_begin(arguments, TrainerState(global_step=step, max_steps=10), TrainerControl())
            seen += objective.phase.name[0]
        return seen

    assert phases(epochs=2, ungated=0, soft=1) == "SSSSSHHHHH"
    assert phases(epochs=2, ungated=0, soft=0) == "HHHHHHHHHH"
    assert phases(epochs=2, ungated=0, soft=2) == "SSSSSSSSSS"
    assert phases(epochs=5, ungated=1, soft=2) == "UUSSSSHHHH"
    assert phases(epochs=5, ungated=2, soft=0) == "UUUUHHHHHH"
    assert phases(epochs=5, ungated=5, soft=0) == "UUUUUUUUUU"


def test_resumed_phase(fresh_model: SmartBertForSequenceClassification, tmp_path: Path) -> None:
    objective = Stage1(fresh_model, TINY_SETTINGS)
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to=[])
    settings = replace(TINY_SETTINGS, stage1_epochs=5, ungated_epochs=1, soft_epochs=2)
    for step, phase in ((7, Phase.HARD), (3, Phase.SOFT), (1, Phase.UNGATED)):
        state = TrainerState(global_step=step, max_steps=10)
        Phases(objective, settings).on_step_begin(arguments, state, TrainerControl())
        assert objective.phase is phase


def test_ungated_epoch_is_never_best(encoder_dir: Path, task_data: TaskData, tmp_path: Path) -> None:
    # Nothing moves, so all epochs are equally good: without the rule the first, an ungated one, would be kept.
    still = replace(TINY_SETTINGS, learning_rate=0.0, head_learning_rate=1e-6, gate_lambda=10.0, eta1=0.0)
    settings = replace(still, stage1_epochs=3, ungated_epochs=1, soft_epochs=1, metric="matthews")
    report = train(str(encoder_dir), task_data, tmp_path / "ckpt", settings)
    scores = [entry["eval_matthews"] for entry in report.stage1_log]
    assert scores[0] == scores[1] == scores[2] != report.stage1_log[0]["eval_accuracy"]
    choices = [entry["eval_choice"] for entry in report.stage1_log]
    assert choices == pytest.approx([scores[0] - 2.0, scores[1], scores[2]])
    # The gates stand still in the ungated epoch; lambda / G pulls them 12 steps long in the second, which is kept:
    # 1e-6 x (24 + 23 + ... + 13) / 36 = 6.17e-6.
    stored = load_file(tmp_path / "ckpt" / "model.safetensors")
    moved = [stored[f"gates.{layer}.decide.bias"].item() - settings.gate_bias for layer in range(LAYERS)]
    assert moved == pytest.approx([6.17e-6] * LAYERS, rel=0.05)


def test_one_layer_encoder_is_refused(task_data: TaskData, tmp_path: Path) -> None:
    # Stage 2 trains exit heads 1..L-1: with L = 1 there are none.
    config = make_encoder_config()
    config.num_hidden_layers = 1
    BertModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "encoder")
    make_tokenizer().save_pretrained(tmp_path / "encoder")
    log: list[str] = []
    with pytest.raises(ConfigError, match="layer"):
        train(str(tmp_path / "encoder"), task_data, tmp_path / "ckpt", TINY_SETTINGS, log=log.append)
    assert not [line for line in log if "epoch" in line]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, encoder_dir: Path, task_data: TaskData) -> Iterator[TrainedRun]:
    """A run in bf16; read only."""
    with pytest.MonkeyPatch.context() as patch:
        # transformers leaves a run's precision in this variable; other tests get it back as it was.
        patch.setenv("ACCELERATE_MIXED_PRECISION", "no")
        settings = replace(TINY_SETTINGS, mixed_precision="bf16")
        yield train_in(tmp_path_factory.mktemp("mixed"), encoder_dir, task_data, settings)


def test_bf16_is_mixed_precision(trained: TrainedRun, mixed: TrainedRun, task_data: TaskData) -> None:
    stored = load_file(mixed.output / "model.safetensors")
    single = load_file(trained.output / "model.safetensors")
    assert not torch.equal(stored["exits.0.dense.weight"], single["exits.0.dense.weight"])
    assert {tensor.dtype for tensor in stored.values()} == {torch.float32}
    # And what is stored was moved by less than half precision could hold.
    weight = stored["backbone.encoder.layer.1.output.dense.weight"]
    assert not torch.equal(weight, weight.to(torch.bfloat16).float())
    # Thresholds are chosen and figures reported in float32: the checkpoint evaluated anew gives the report's.
    model = SmartBertForSequenceClassification.from_pretrained(mixed.output)
    tokenizer = AutoTokenizer.from_pretrained(mixed.output)
    inputs = tokenizer(DEV_TEXTS, truncation=True, max_length=24, padding=True, return_tensors="pt")
    with torch.no_grad():
        right_b = model(**inputs).logits.argmax(-1) == torch.tensor(task_data.dev.label_ids)
    assert mixed.report.dev.accuracy == pytest.approx(right_b.float().mean().item())


@pytest.mark.usefixtures("mixed")
@pytest.mark.parametrize(
    "precision",
    [
        "no",
        pytest.param("auto", marks=pytest.mark.skipif(torch.accelerator.is_available(), reason="it means bf16 there")),
    ],
)
def test_single_precision_after_a_mixed_run(
    trained: TrainedRun, encoder_dir: Path, task_data: TaskData, tmp_path: Path, precision: str
) -> None:
    # Its first epoch is enough to compare: what the Trainer has saved by the second.
    def stop(line: str) -> None:
        if line.startswith("stage 1: epoch 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            str(encoder_dir), task_data, tmp_path / "ckpt", replace(TINY_SETTINGS, mixed_precision=precision), log=stop
        )
    trained.interrupt_at("stage 1: epoch 2", tmp_path / "trained")
    epoch = f"stage1/checkpoint-{len(task_data.train) // TINY_SETTINGS.batch_size}"
    assert differing_weights(tmp_path / "ckpt.partial" / epoch, tmp_path / "trained.partial" / epoch) == []


def test_missing_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"the tokenizer of .* (cannot be loaded|knows \d+ tokens)") as caught:
        load_tokenizer(str(tmp_path), vocab_size=30522)
    assert "tokenizer.json" in caught.value.hint


def test_tokenizers_own_padding_is_removed(encoder_dir: Path, tmp_path: Path) -> None:
    saved = AutoTokenizer.from_pretrained(encoder_dir)
    saved.backend_tokenizer.enable_truncation(5)
    saved.backend_tokenizer.enable_padding(length=12)
    saved.save_pretrained(tmp_path)
    tokenizer = load_tokenizer(str(tmp_path), vocab_size=len(make_tokenizer()))
    assert tokenizer.backend_tokenizer.padding is None
    assert tokenizer.backend_tokenizer.truncation is None
    assert len(tokenizer("Do cats eat bats?")["input_ids"]) == 7  # [CLS], four words, the question mark, [SEP]
