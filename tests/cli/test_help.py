"""--help and --version of every command: they exit with 0, and the help shows an example to copy."""

from __future__ import annotations

import importlib.metadata
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

import examples.demo.__main__
import smartbert.cli.evaluate
import smartbert.cli.train
import smartbert_bench.cli
import smartbert_export.cli.export
import smartbert_export.cli.verify
import smartbert_runtime.cli.infer
import smartbert_runtime.cli.inspect
from tests.cli.conftest import Call

COMMANDS: dict[str, Callable[[], object]] = {
    "smartbert-train": smartbert.cli.train.main,
    "smartbert-evaluate": smartbert.cli.evaluate.main,
    "smartbert-export": smartbert_export.cli.export.main,
    "smartbert-verify": smartbert_export.cli.verify.main,
    "smartbert-infer": smartbert_runtime.cli.infer.main,
    "smartbert-inspect": smartbert_runtime.cli.inspect.main,
    "smartbert-bench": smartbert_bench.cli.main,
    "python -m examples.demo": examples.demo.__main__.main,
}


def test_list_holds_every_console_script() -> None:
    pyproject = Path(__file__).resolve().parents[2] / "pyproject.toml"
    scripts = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["scripts"]
    mains = {
        name: f"{main.__module__}:{main.__name__}" for name, main in COMMANDS.items() if name.startswith("smartbert-")
    }
    assert mains == scripts


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example(call: Call, name: str, flag: str) -> None:
    run = call(COMMANDS[name], flag)
    assert run.code == 0 and run.err == ""
    assert f"Example: {name}" in run.out


@pytest.mark.parametrize("name", COMMANDS)
def test_version(call: Call, name: str) -> None:
    run = call(COMMANDS[name], "--version")
    assert (run.code, run.out, run.err) == (0, f"smartbert {importlib.metadata.version('smartbert')}\n", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_no_arguments_is_usage_error(call: Call, name: str) -> None:
    run = call(COMMANDS[name])
    assert run.code == 2 and run.out == "" and "Traceback" not in run.err


OPTIONS = {
    "smartbert-train": "--model --output --train-file --dev-file --dataset --task --resume --seed --stage1-epochs "
    "--recipe --arm --mixed-precision --quiet --version --install-completion",
    "smartbert-evaluate": "--file --input-format --quiet --exit-threshold --skip-threshold --batch-size --format "
    "--plot",
    "smartbert-export": "--golden-file --no-golden-texts --layout --precision --target --check-file --fixed-shape "
    "--ort-format --overwrite",
    "smartbert-verify": "--against --file --part --layout --precision --provider --threads --format",
    "smartbert-infer": "--text --text-pair --file --format --trace --preset --exit-threshold --skip-threshold "
    "--no-skip --no-exit --max-layers --rule --exit-thresholds --patience --deadline-ms "
    "--batch-size --precision --layout --provider --threads --no-truncate --input-format --quiet",
    "smartbert-inspect": "--ops --provider --format",
    "smartbert-bench": "--file --against --plain-checkpoint --layout --precision --preset --repeats --batch-sizes "
    "--starts --max-texts --input-format --label-column --provider --threads --format --save --plot",
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_of_the_contract(call: Call, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = call(COMMANDS[name], "--help").out
    assert [option for option in OPTIONS[name].split() if option not in shown] == []
