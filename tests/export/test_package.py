"""The package folder as a whole: manifest, presets, options, byte-equality; a failure leaves nothing behind."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from smartbert.modeling import SmartBertForSequenceClassification
from smartbert.reference import trace_rows
from smartbert_export import export_package
from smartbert_export.options import ExportOptions
from smartbert_runtime import SmartBert
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.errors import InputError, ParityError
from smartbert_runtime.package.open import open_package
from smartbert_runtime.package.policy_file import parse_policy_file
from smartbert_runtime.parity.golden import read_golden
from tests.conftest import LABELS, SENTENCES
from tests.export.folder_contents import contents
from tests.export.reporters import AtStep, NoSteps


@pytest.fixture(scope="module")
def ids_only_dir(tmp_path_factory: pytest.TempPathFactory, checkpoint_dir: Path) -> Path:
    """Exported over an older folder, with three golden texts from a file, of which only the token ids ship."""
    folder = tmp_path_factory.mktemp("ids") / "out"
    folder.mkdir()
    (folder / "manifest.json").write_text("of an older package", encoding="utf-8")
    (folder / "old.txt").write_text("old", encoding="utf-8")
    texts = folder.parent / "golden.tsv"
    texts.write_text("label\tsentence\nodd\tOff we go.\nodd\tWho am I?\nodd\tCats eat bats.\n", encoding="utf-8")
    export_package(checkpoint_dir, folder, ExportOptions(golden_file=texts, golden_texts=False, overwrite=True))
    return folder


def test_manifest(package_dir: Path, checkpoint_dir: Path) -> None:
    manifest = json.loads((package_dir / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["schema_version"] == "1.1"
    assert manifest["model"] == {
        "family": "bert",
        "layers": 4,
        "hidden_size": 32,
        "max_length": 24,
        "fixed_shape": None,
        "gates": True,
        "early_exits": True,
        "text_pairs": None,
    }
    assert manifest["labels"] == list(LABELS)
    assert [spec["name"] for spec in manifest["input"]] == ["input_ids", "attention_mask", "token_type_ids"]
    assert manifest["output"] == [{"name": "logits", "dtype": "float32", "dims": ["batch", "3"]}]
    assert manifest["variants"] == [{"name": "separate-fp32", "layout": "separate", "precision": "fp32"}]
    assert [(c["name"], c["role"], c["index"]) for c in manifest["components"][:4]] == [
        ("embeddings", "embeddings", 0),
        ("gate_01", "gate", 1),
        ("layer_01", "layer", 1),
        ("exit_01", "exit", 1),
    ]
    assert len(manifest["components"]) == 13 and manifest["extra"] == {} and manifest["operators"] is None
    for component in manifest["components"]:
        assert list(component["files"]) == list(component["coverage"]) == ["separate-fp32"]
    weights = (checkpoint_dir / "model.safetensors").read_bytes() + (checkpoint_dir / "config.json").read_bytes()
    provenance = manifest["provenance"]
    assert provenance["checkpoint_sha256"] == hashlib.sha256(weights).hexdigest()
    assert provenance["opset"] == 18
    assert provenance["options"] == {
        "layout": ["separate"],
        "precision": ["fp32"],
        "target": "x86",
        "ort_format": False,
        "golden_texts": True,
        "gates": True,
        "license": None,
    }
    assert set(provenance["packages"]) == {"smartbert", "torch", "transformers", "onnx"}
    assert provenance["packages"]["torch"] == torch.__version__


def test_manifest_lists_every_file(package_dir: Path) -> None:
    found = contents(package_dir)
    entries = {entry.file: entry for entry in open_package(package_dir).manifest.files()}
    assert set(found) == {*entries, "manifest.json", "manifest.sha256", "policy.json", "SUMMARY.md"}
    for file, entry in entries.items():
        assert (entry.bytes, entry.sha256) == (len(found[file]), hashlib.sha256(found[file]).hexdigest())
    digest = hashlib.sha256(found["manifest.json"]).hexdigest()
    assert found["manifest.sha256"] == f"{digest}  manifest.json\n".encode()


def test_no_file_holds_paths(package_dir: Path, checkpoint_dir: Path) -> None:
    repository = Path(__file__).resolve().parents[2]
    for file, content in contents(package_dir).items():
        for place in (repository, checkpoint_dir, package_dir):
            assert str(place).encode() not in content, f"{file} names {place}"


def test_policy_presets(package_dir: Path) -> None:
    policies = parse_policy_file((package_dir / "policy.json").read_text(encoding="utf-8"))
    assert policies.variants == {
        "separate-fp32": {
            "default": Policy(skip_threshold=0.5, exit_threshold=0.5),
            "full-depth": Policy(skip_threshold=0.5, exit_threshold=0.5, no_skip=True, no_exit=True),
        }
    }


def test_other_process_is_byte_equal(package_dir: Path, checkpoint_dir: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(checkpoint_dir, tmp_path / "elsewhere" / "ckpt")
    call = "from smartbert_export.cli.export import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", call, str(copy), "deep/er/package"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONHASHSEED": "77"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = contents(package_dir), contents(tmp_path / "deep" / "er" / "package")
    assert sorted(first) == sorted(second)
    assert [file for file in first if first[file] != second[file]] == []
    # stdout is data, steps go to stderr; each kind of part is traced once, however many layers have it.
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["package", "model", "parity", "next"]
    assert [line for line in done.stderr.splitlines() if " tracing " in line] == [
        f"4 of 8: tracing {kind}" for kind in ("gate", "layer", "exit", "embeddings")
    ]
    assert [path.name for path in (tmp_path / "deep" / "er").iterdir()] == ["package"]


def test_golden_texts_leave_graphs_alone(package_dir: Path, ids_only_dir: Path) -> None:
    one, other = contents(package_dir), contents(ids_only_dir)
    same = [file for file in one if file.startswith(("graphs/", "tokenizer/"))]
    assert len(same) == 15 and all(one[file] == other[file] for file in same)


def test_golden_file(ids_only_dir: Path, model: SmartBertForSequenceClassification) -> None:
    golden = read_golden(open_package(ids_only_dir))
    tokens = SmartBert.load(ids_only_dir).tokenizer.encode(["Off we go.", "Who am I?", "Cats eat bats."])
    np.testing.assert_array_equal(golden.tokens.input_ids_bs, tokens.input_ids_bs)
    expected = trace_rows(model, tokens, Policy(exit_threshold=0.5))
    assert [trace.decisions() for trace in golden.traces] == [trace.decisions() for trace in expected]


def test_no_golden_texts(ids_only_dir: Path) -> None:
    manifest = json.loads((ids_only_dir / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["golden"]["texts"] is None
    assert manifest["provenance"]["options"]["golden_texts"] is False
    assert [file.name for file in (ids_only_dir / "golden").iterdir()] == ["expected.npz"]
    for file, content in contents(ids_only_dir).items():
        assert b"Cats eat bats" not in content, f"{file} holds a text"


def test_golden_texts_are_json_lines(package_dir: Path) -> None:
    lines = (package_dir / "golden" / "texts.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [{"text": text} for text in SENTENCES]


def test_overwrite_removes_old_files(ids_only_dir: Path) -> None:
    assert not (ids_only_dir / "old.txt").exists()
    assert sorted(path.name for path in ids_only_dir.parent.iterdir()) == ["golden.tsv", "out"]


def test_existing_folder_is_refused(checkpoint_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="out exists already") as error:
        export_package(checkpoint_dir, tmp_path / "out")
    assert "--overwrite" in error.value.hint
    assert contents(tmp_path) == {"out/mine.txt": b"mine"}


def test_failure_keeps_old_folder(checkpoint_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text("mine", encoding="utf-8")

    def interrupt() -> None:
        assert len(list(tmp_path.iterdir())) == 2, "the new folder is built beside the old one"
        raise KeyboardInterrupt

    reporter = AtStep("writing gate_01 (separate-fp32)", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export_package(checkpoint_dir, tmp_path / "out", ExportOptions(overwrite=True), reporter=reporter)
    assert reporter.times == 1
    assert contents(tmp_path) == {"out/manifest.json": b"mine"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_output_over_checkpoint_is_refused(checkpoint_dir: Path, tmp_path: Path) -> None:
    checkpoint = Path(shutil.copytree(checkpoint_dir, tmp_path / "ckpt"))
    before = contents(checkpoint)

    with pytest.raises(InputError):
        export_package(checkpoint, checkpoint, ExportOptions(overwrite=True), reporter=NoSteps())
    assert contents(checkpoint) == before


def test_parity_failure_writes_nothing(checkpoint_dir: Path, tmp_path: Path) -> None:
    """A graph is damaged after the model was cut, before the manifest has its hash."""

    def damage() -> None:
        (file,) = tmp_path.glob(".out.*/work/fp32/layer_02.onnx")
        graph = onnx.load(file)
        (weight,) = (tensor for tensor in graph.graph.initializer if tensor.name == "layer.output.dense.weight")
        weight.raw_data = (np.frombuffer(weight.raw_data, np.float32) * np.float32(1.01)).tobytes()
        onnx.save(graph, file)

    reporter = AtStep("counting operator coverage", damage)
    with pytest.raises(ParityError, match=r"^layer_02 differs from PyTorch") as error:
        export_package(checkpoint_dir, tmp_path / "out", reporter=reporter)
    assert reporter.times == 1
    assert error.value.exit_code == 3 and error.value.hint
    assert list(tmp_path.iterdir()) == []


def test_near_golden_texts_are_left_out(
    model: SmartBertForSequenceClassification, checkpoint_dir: Path, tmp_path: Path, classifier: SmartBert
) -> None:
    """The exit threshold is the entropy at one text's exit head, up to rounding; three golden texts are this one."""
    tokens = classifier.tokenizer.encode(SENTENCES)
    traces = trace_rows(model, tokens, Policy(exit_threshold=0.5))
    row = next(row for row, trace in enumerate(traces) if not np.isnan(trace.uncertainty_l).all())
    near = float(traces[row].uncertainty_l[~np.isnan(traces[row].uncertainty_l)][0]) + 1e-5
    checkpoint = Path(shutil.copytree(checkpoint_dir, tmp_path / "ckpt"))
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    (checkpoint / "config.json").write_text(json.dumps({**config, "exit_threshold": near}), encoding="utf-8")
    with (checkpoint / "golden_texts.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(f"{json.dumps({'text': SENTENCES[row]})}\n" * 2)
    export_package(checkpoint, tmp_path / "out")
    lines = (tmp_path / "out" / "golden" / "texts.jsonl").read_text(encoding="utf-8").splitlines()
    assert SENTENCES[row] not in [json.loads(line)["text"] for line in lines]
    assert 20 <= len(lines) < len(SENTENCES)
