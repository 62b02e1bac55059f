"""A package folder that is not whole or not as exported: infer and verify name the file and print no answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import smartbert_export.cli.verify
import smartbert_runtime.cli.infer
from tests.cli.conftest import Call
from tests.helpers import assert_named_error, edit_manifest

FILES = [
    "manifest.json",
    "manifest.sha256",
    "policy.json",
    "graphs/embeddings.onnx",
    "graphs/layer_03.onnx",
    "tokenizer/tokenizer.json",
    "tokenizer/settings.json",
    "golden/expected.npz",
    "golden/texts.jsonl",
]


def infer(call: Call, package: Path, *words: str) -> None:
    main = smartbert_runtime.cli.infer.main
    # At full depth every graph is read.
    run = call(main, package, "--text", "Off with her head!", "--preset", "full-depth")
    assert_named_error(run, *words)


def verify(call: Call, package: Path, *words: str) -> None:
    assert_named_error(call(smartbert_export.cli.verify.main, package), *words)


Command = Callable[..., None]
both = pytest.mark.parametrize("command", [infer, verify])


@both
@pytest.mark.parametrize("file", FILES)
def test_missing_file(call: Call, package_copy: Path, command: Command, file: str) -> None:
    (package_copy / file).unlink()
    command(call, package_copy, file)


@both
@pytest.mark.parametrize("file", [file for file in FILES if file.endswith((".onnx", ".json", ".npz", ".jsonl"))])
def test_truncated_file(call: Call, package_copy: Path, command: Command, file: str) -> None:
    content = (package_copy / file).read_bytes()
    (package_copy / file).write_bytes(content[:-10])
    command(call, package_copy, file)


@both
@pytest.mark.parametrize(
    "file", ["graphs/embeddings.onnx", "graphs/layer_03.onnx", "tokenizer/tokenizer.json", "tokenizer/settings.json"]
)
def test_changed_byte(call: Call, package_copy: Path, command: Command, file: str) -> None:
    content = bytearray((package_copy / file).read_bytes())
    content[len(content) // 2] ^= 1
    (package_copy / file).write_bytes(content)
    command(call, package_copy, f"error: {file} does not match the manifest (sha256 ", ", expected ")


@pytest.mark.parametrize("file", ["golden/expected.npz", "golden/texts.jsonl", "graphs/gate_04.onnx"])
def test_verify_hashes_every_file(call: Call, package_copy: Path, file: str) -> None:
    content = bytearray((package_copy / file).read_bytes())
    content[len(content) // 2] ^= 1
    (package_copy / file).write_bytes(content)
    verify(call, package_copy, f"error: {file} does not match the manifest")


@both
def test_edited_policy(call: Call, package_copy: Path, command: Command) -> None:
    file = package_copy / "policy.json"
    policies = json.loads(file.read_text(encoding="utf-8"))
    policies["variants"]["separate-fp32"]["default"]["exit_threshold"] = 0.9
    file.write_text(json.dumps(policies), encoding="utf-8")
    command(call, package_copy, "policy.json was changed by hand or is damaged")


@both
def test_edited_manifest(call: Call, package_copy: Path, command: Command) -> None:
    file = package_copy / "manifest.json"
    file.write_text(file.read_text(encoding="utf-8").replace('"calm"', '"cool"'), encoding="utf-8")
    command(call, package_copy, "manifest.json does not match manifest.sha256")


def put(*path: str | int, value: object) -> Callable[[dict[str, Any]], None]:
    """A change of the manifest: set what stands at `path`."""

    def change(manifest: Any) -> None:
        for key in path[:-1]:
            manifest = manifest[key]
        manifest[path[-1]] = value

    return change


FIRST_FILE = ("components", 0, "files", "separate-fp32", "file")
MANIFESTS = {
    "an unknown key": (put("color", value="red"), ["manifest has an unknown key 'color'"]),
    "an unknown key inside": (put("model", "heads", value=4), ["manifest.model has an unknown key 'heads'"]),
    "a newer schema": (put("schema_version", value="2.0"), ["schema version 2.0", "install a newer smartbert"]),
    "no schema": (put("schema_version", value="new"), ["schema_version 'new' is not of the form"]),
    "a path upwards": (put(*FIRST_FILE, value="../secret.onnx"), ["'../secret.onnx', a path that leaves the folder"]),
    "a path inside out": (put(*FIRST_FILE, value="graphs/../../x"), ["a path that leaves the folder"]),
    "an absolute path": (put(*FIRST_FILE, value="/etc/hostname"), ["'/etc/hostname', a path that leaves the folder"]),
    "a drive letter": (put(*FIRST_FILE, value="C:/x.onnx"), ["a path that leaves the folder"]),
    "a wrong type": (put("model", "layers", value="4"), ["manifest.model.layers must be int, not str"]),
}


@both
@pytest.mark.parametrize("case", MANIFESTS)
def test_invalid_manifest(call: Call, package_copy: Path, command: Command, case: str) -> None:
    change, words = MANIFESTS[case]
    edit_manifest(package_copy, change)
    command(call, package_copy, *words)


@both
def test_link_to_other_bytes(call: Call, package_copy: Path, command: Command) -> None:
    graph = package_copy / "graphs" / "layer_02.onnx"
    outside = package_copy.parent / "gate.onnx"
    outside.write_bytes(graph.read_bytes()[:-1] + b"?")
    graph.unlink()
    graph.symlink_to(outside)
    command(call, package_copy, "graphs/layer_02.onnx does not match the manifest")


def test_newer_minor_schema_is_noted(call: Call, package_copy: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest |= {"schema_version": "1.7", "color": "red"}

    edit_manifest(package_copy, change)
    run = call(smartbert_runtime.cli.infer.main, package_copy, "--text", "Off with her head!", "--format", "json")
    assert run.code == 0 and json.loads(run.out)["text"] == "Off with her head!"
    assert run.err == "note: schema 1.7: ignored the unknown key manifest.color\n"


def test_own_keys_under_extra(call: Call, package_copy: Path) -> None:
    edit_manifest(package_copy, put("extra", "color", value="red"))
    run = call(smartbert_runtime.cli.infer.main, package_copy, "--text", "Off with her head!")
    assert run.code == 0 and run.err == ""
