"""The wheel in a clean environment with only its base dependencies, as on a device. Slow."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from smartbert_runtime import SmartBert

REPOSITORY = Path(__file__).resolve().parents[2]
COMMANDS = tuple(f"smartbert-{name}" for name in ("train", "evaluate", "export", "verify", "infer", "inspect", "bench"))
NOT_THERE = ("torch", "transformers", "onnx", "datasets", "accelerate", "safetensors")
# Neither the tests' settings nor the repository may reach into the clean environment.
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}


@dataclass(frozen=True, kw_only=True)
class Device:
    """A clean environment; commands run outside the repository."""

    bin: Path
    home: Path

    def run(self, command: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.bin / command), *map(str, arguments)],
            cwd=self.home,
            env=CLEAN,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for tool in ("build", "hatchling"):
        if importlib.util.find_spec(tool) is None:
            pytest.skip(f"the wheel cannot be built: {tool} is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(REPOSITORY)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Device:
    folder = tmp_path_factory.mktemp("device")
    venv.create(folder / "env", with_pip=True)
    made = Device(bin=folder / "env" / ("Scripts" if os.name == "nt" else "bin"), home=folder)
    versions = {found.metadata["Name"]: found.version for found in importlib.metadata.distributions()}
    pins = [f"{name}=={version}" for name, version in sorted(versions.items()) if name != "smartbert"]
    # A local version, as of a CPU build, is known to no index; none of the base dependencies has one.
    (folder / "constraints.txt").write_text("\n".join(pin for pin in pins if "+" not in pin), encoding="utf-8")
    quick = ("--disable-pip-version-check", "--retries", "1", "--constraint", folder / "constraints.txt")
    probe = made.run("python", "-m", "pip", "download", *quick, "--no-deps", "--dest", folder / "probe", "typer")
    if probe.returncode != 0:
        pytest.skip(f"no package index can be reached: {probe.stderr.strip().splitlines()[-1]}")
    done = made.run("python", "-m", "pip", "install", *quick, wheel)
    assert done.returncode == 0, done.stderr
    return made


def assert_missing(done: subprocess.CompletedProcess[str], command: str, extra: str) -> None:
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    error, hint = done.stderr.splitlines()
    assert error.startswith(f"error: {command} needs the package '") and error.endswith("which is not installed")
    assert hint == f"hint: pip install 'smartbert[{extra}]'"


def test_wheel_holds_the_four_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        text = b"".join(archive.read(name) for name in names)
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"smartbert", "smartbert_bench", "smartbert_export", "smartbert_runtime"}
    assert {f"{package}/py.typed" for package in tops} <= set(names)
    assert str(REPOSITORY).encode() not in text


def test_base_install_commands(device: Device) -> None:
    code = f"import importlib.util as u; print([name for name in {NOT_THERE} if u.find_spec(name)])"
    assert device.run("python", "-c", code).stdout == "[]\n"
    for command in COMMANDS:
        done = device.run(command, "--help")
        assert done.returncode == 0 and f"Example: {command}" in done.stdout, done.stderr
    where = device.run("python", "-c", "import smartbert_runtime as r; print(r.__file__)").stdout
    assert Path(where).is_relative_to(device.home / "env")


def test_base_install_infers_and_verifies(device: Device, package_dir: Path, classifier: SmartBert) -> None:
    done = device.run("smartbert-infer", package_dir, "--text", "Off with her head!", "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    (expected,) = classifier.classify(["Off with her head!"])
    assert (answer["label"], answer["layers_run"]) == (expected.label, list(expected.layers_run))
    done = device.run("smartbert-verify", package_dir)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "parity: good", done.stderr


def test_base_install_benches(device: Device, package_dir: Path) -> None:
    file = device.home / "dev.tsv"
    file.write_text("text\tlabel\nOff with her head!\tloud\nDo cats eat bats?\todd\n", encoding="utf-8")
    done = device.run("smartbert-bench", package_dir, "--file", file, "--repeats", "1", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["conditions"]["texts"] == 2
    for option, value, extra in (
        ("--against", "plain", "export"),
        ("--plain-checkpoint", "ckpt", "incumbent"),
        ("--plot", "bench.png", "bench"),
    ):
        done = device.run("smartbert-bench", package_dir, "--file", file, option, value)
        command = "smartbert-bench --against plain" if option == "--against" else f"smartbert-bench {option}"
        assert_missing(done, command, extra)


def test_missing_extras(device: Device, package_dir: Path, checkpoint_dir: Path) -> None:
    file = device.home / "train.tsv"
    rows = "".join(f"text {number}\t{number % 2}\n" for number in range(40))
    file.write_text("text\tlabel\n" + rows, encoding="utf-8")
    data = ("--train-file", str(file), "--dev-file", str(file))
    done = device.run("smartbert-train", "--model", "encoder", "--output", "ckpt", *data)
    assert_missing(done, "smartbert-train", "train")
    assert_missing(device.run("smartbert-export", checkpoint_dir, "out"), "smartbert-export", "export")
    done = device.run("smartbert-verify", package_dir, "--against", checkpoint_dir)
    assert_missing(done, "smartbert-verify --against", "export")
    assert not (device.home / "ckpt").exists() and not (device.home / "out").exists()
