"""The newcomer's path, command by command, on a tiny encoder: train, evaluate, export, verify, infer, bench."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import smartbert.cli.evaluate
import smartbert.cli.train
import smartbert_bench.cli
import smartbert_export.cli.export
import smartbert_export.cli.verify
import smartbert_runtime.cli.infer
from smartbert_export.summary import export_lines
from smartbert_runtime.package.open import open_package
from smartbert_runtime.parity.golden import read_golden
from tests.cli.conftest import Call
from tests.conftest import SENTENCES

# Every setting that matters here, so that other defaults change nothing: with high learning rates and class weights a
# tiny model learns enough for some texts to exit early and for no decision to be too close to its threshold.
QUICK = {
    "--stage1-epochs": "4",
    "--ungated-epochs": "2",
    "--soft-epochs": "1",
    "--stage2-epochs": "2",
    "--gate-lambda": "0",
    "--target-layers": "0",
    "--eta1": "0.1",
    "--eta2": "0.1",
    "--joint-exits": "0",
    "--distillation": "0",
    "--class-weights": "balanced",
    "--learning-rate": "0.0005",
    "--head-learning-rate": "0.01",
    "--stage2-learning-rate": "0.02",
    "--warmup-steps": "0",
    "--batch-size": "8",
    "--mixed-precision": "no",
    "--seed": "3",
    "--max-length": "24",
    "--head-width": "16",
    "--gate-heads": "2",
    "--exit-heads": "4",
    "--head-query": "first",
    "--gate-bias": "-0.5",
    "--metric": "accuracy",
    "--validation-fraction": "0.1",
    "--max-disagreement": "0.01",
}


def write_rows(file: Path, numbers: range) -> None:
    rows = [f"{SENTENCES[n % 24]} {n}\t{('asks', 'tells')['?' not in SENTENCES[n % 24]]}\n" for n in numbers]
    file.write_text("text\tlabel\n" + "".join(rows), encoding="utf-8")


def test_train_export_verify_infer_bench(
    call: Call, encoder_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(Path("train.tsv"), range(72))
    write_rows(Path("dev.tsv"), range(100, 120))

    options = [word for pair in QUICK.items() for word in pair]
    data = ("--train-file", "train.tsv", "--dev-file", "dev.tsv")
    run = call(smartbert.cli.train.main, "--model", encoder_dir, "--output", "ckpt", *data, *options)
    assert run.code == 0, run.err
    titles = [line.split("  ")[0] for line in run.out.splitlines()]
    assert titles == ["checkpoint", "exit threshold", "dev accuracy", "layers run", "computation", "next"]
    assert "stage 1: epoch 2" in run.err and "stage 2: epoch 1" in run.err
    report = json.loads(Path("ckpt/training_report.json").read_text(encoding="utf-8"))
    assert f"dev accuracy    {report['dev']['accuracy']:.4f}" in run.out
    assert f"layers run      {report['dev']['mean_layers_run']:.2f} of 4" in run.out
    share = report["dev_evaluation"]["macs"] / report["dev_evaluation"]["plain_macs"]
    assert f"computation     {share:.1%} of a plain classifier's MAC" in run.out
    assert 1.0 < report["dev"]["mean_layers_run"] < report["dev_full_depth"]["mean_layers_run"]
    assert report["labels"] == ["asks", "tells"] and report["settings"]["seed"] == 3
    assert not Path("ckpt.partial").exists()
    assert len(Path("ckpt/golden_texts.jsonl").read_text(encoding="utf-8").splitlines()) == 20

    run = call(smartbert.cli.evaluate.main, "ckpt", "--file", "dev.tsv", "--format", "json")
    assert run.code == 0, run.err
    evaluated = json.loads(run.out)
    assert evaluated["summary"] == report["dev"] and evaluated["full_depth"] == report["dev_full_depth"]
    assert (evaluated["macs"], evaluated["plain_macs"]) == (
        report["dev_evaluation"]["macs"],
        report["dev_evaluation"]["plain_macs"],
    )

    run = call(smartbert_export.cli.export.main, "ckpt", "out")
    assert run.code == 0, run.err
    lines = run.out.splitlines()
    assert re.fullmatch(r"package  out: \d+\.\d MB, \d+\.\d s", lines[0]), lines[0]
    worst = r"parity   separate-fp32: worst part \w+ \d\.\de-0\d from PyTorch, 100\.00% of the golden labels equal"
    assert lines[1] == "model    Text by text it decides which layers to run and where to answer."
    assert re.fullmatch(worst, lines[2]), lines[2]
    recorded = read_golden(open_package("out")).traces
    skipped = sum(len(trace.layers_skipped) for trace in recorded)
    share = skipped / (skipped + sum(len(trace.layers_run) for trace in recorded))
    assert lines[3:] == [*export_lines((), {}, share), 'next     smartbert-infer out --text "..."']
    summary = Path("out/SUMMARY.md").read_text(encoding="utf-8")
    assert f"accuracy {report['dev']['accuracy']:.4f} with {report['dev']['mean_layers_run']:.2f} layers" in summary
    assert "texts cut to 24 tokens" in summary and "longest input: 24 tokens" in summary

    run = call(smartbert_export.cli.verify.main, "out", "--against", "ckpt", "--file", "dev.tsv")
    assert run.code == 0 and "20 texts, 0 with other decisions" in run.out, run.out + run.err

    run = call(smartbert_runtime.cli.infer.main, "out", "--file", "dev.tsv", "--format", "json")
    assert run.code == 0
    answers = [json.loads(line) for line in run.out.splitlines()]
    assert len(answers) == 20 and {answer["label"] for answer in answers} <= {"asks", "tells"}

    run = call(
        smartbert_bench.cli.main,
        "out",
        "--file",
        "dev.tsv",
        "--repeats",
        "1",
        "--starts",
        "0",
        "--format",
        "json",
    )
    assert run.code == 0
    measured = json.loads(run.out)["contenders"][0]
    assert measured["accuracy"] == pytest.approx(report["dev"]["accuracy"])
    assert measured["mean_layers_run"] == pytest.approx(report["dev"]["mean_layers_run"])
    assert measured["mean_layers_run"] == pytest.approx(sum(len(answer["layers_run"]) for answer in answers) / 20)
