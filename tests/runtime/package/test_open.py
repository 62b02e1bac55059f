"""package.open, package.manifest: an incomplete, changed or foreign folder is refused, each with its reason."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from smartbert_runtime.errors import IntegrityError, ManifestError
from smartbert_runtime.package.manifest import DIGEST_FILE, MANIFEST_FILE
from smartbert_runtime.package.open import open_package, parse_manifest
from tests.conftest import LABELS, LAYERS
from tests.helpers import edit_manifest, refresh_hashes
from tests.package_folders import Document, first_component, first_file, flip_byte, read_manifest

EMBEDDINGS = "graphs/embeddings.onnx"


def as_bytes(document: Document) -> bytes:
    return json.dumps(document).encode()


def test_exported_package_opens(package_dir: Path) -> None:
    package = open_package(package_dir)
    assert package.notes == ()
    assert package.manifest.labels == LABELS
    assert (package.manifest.model.layers, package.manifest.model.hidden_size) == (LAYERS, 32)
    names = [component.name for component in package.manifest.components]
    layers = [f"{role}_{index:02d}" for index in range(1, 5) for role in ("gate", "layer", "exit")]
    assert names == ["embeddings", *layers]


def test_manifest_lists_every_file(package_dir: Path) -> None:
    vouched = {entry.file for entry in open_package(package_dir).manifest.files()}
    there = {path.relative_to(package_dir).as_posix() for path in package_dir.rglob("*") if path.is_file()}
    assert there - vouched == {"manifest.json", "manifest.sha256", "policy.json", "SUMMARY.md"}
    assert vouched <= there


def test_read_returns_bytes(package_dir: Path) -> None:
    package = open_package(package_dir)
    (entry,) = package.manifest.component("embeddings").files.values()
    assert package.read(entry) == (package_dir / EMBEDDINGS).read_bytes()


# Schema versions


def test_newer_minor_ignores_unknown_keys(package_dir: Path) -> None:
    document = read_manifest(package_dir)
    document["schema_version"] = "1.7"
    document["mood"] = "fine"
    first_file(document)["compressed"] = False
    manifest, notes = parse_manifest(as_bytes(document))
    assert manifest.labels == LABELS
    assert len(notes) == 2
    assert all(note.startswith("schema 1.7: ignored the unknown key manifest.") for note in notes)
    assert {note.rsplit(".", 1)[1] for note in notes} == {"mood", "compressed"}


def test_newer_minor_needs_known_keys(package_dir: Path) -> None:
    document = read_manifest(package_dir) | {"schema_version": "1.7"}
    del document["labels"]
    with pytest.raises(ManifestError, match="manifest lacks the key 'labels'"):
        parse_manifest(as_bytes(document))


@pytest.mark.parametrize(
    ("version", "hint"), [("2.0", "install a newer smartbert"), ("0.9", "export again with this version")]
)
def test_other_major_is_refused(version: str, hint: str) -> None:
    with pytest.raises(ManifestError, match=rf"schema version {version}, this runtime reads 1\.1") as caught:
        parse_manifest(as_bytes({"schema_version": version, "everything": "else"}))
    assert caught.value.hint == hint


@pytest.mark.parametrize("version", ["1", "1.0.0", "one.zero", None, ""])
def test_malformed_version_is_refused(version: str | None) -> None:
    with pytest.raises(ManifestError, match=r"is not of the form '1\.0'"):
        parse_manifest(as_bytes({"schema_version": version}))


def test_unknown_keys_outside_extra(package_dir: Path) -> None:
    document = read_manifest(package_dir)
    document["extra"] = {"mood": "fine"}
    assert parse_manifest(as_bytes(document))[0].extra == {"mood": "fine"}
    document["mood"] = "fine"
    with pytest.raises(ManifestError, match="manifest has an unknown key 'mood'"):
        parse_manifest(as_bytes(document))


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b""])
def test_manifest_must_be_json(content: bytes) -> None:
    with pytest.raises(ManifestError, match="is not JSON"):
        parse_manifest(content)


def rename_variant(document: Document) -> None:
    component = first_component(document)
    component["files"] = {"fused-int8": first_file(document)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda document: document.update(variants=[]), "lists no variant"),
        (rename_variant, "embeddings has a file for the unlisted variant 'fused-int8'"),
        (lambda document: first_file(document).update(bytes="12"), r"components\[0\]\.files\..*bytes must be int"),
    ],
)
def test_inconsistent_manifest_is_refused(package_dir: Path, change: Callable[[Document], object], words: str) -> None:
    document = read_manifest(package_dir)
    change(document)
    with pytest.raises(ManifestError, match=words):
        parse_manifest(as_bytes(document))


# Paths that leave the folder


@pytest.mark.parametrize(
    "path", ["../secret.onnx", "graphs/../../secret.onnx", "/etc/passwd", "graphs\\embeddings.onnx", "C:/secret.onnx"]
)
def test_path_out_of_folder(package_copy: Path, path: str) -> None:
    (package_copy.parent / "secret.onnx").write_bytes((package_copy / EMBEDDINGS).read_bytes())
    edit_manifest(package_copy, lambda document: first_file(document).update(file=path))
    with pytest.raises(ManifestError, match="a path that leaves the folder") as caught:
        open_package(package_copy)
    assert caught.value.hint == "do not use this package"


@pytest.mark.parametrize("name", [EMBEDDINGS, "graphs", "manifest.json", "manifest.sha256", "policy.json"])
def test_links_out_of_folder_work(package_copy: Path, name: str) -> None:
    """As in a hub's cache: every byte that is read through them is hashed."""
    moved = shutil.move(package_copy / name, package_copy.parent / "elsewhere")
    (package_copy / name).symlink_to(moved)
    package = open_package(package_copy)
    assert package.policies().variants and package.read(package.manifest.files()[0])


def test_link_to_other_bytes(package_copy: Path) -> None:
    content = (package_copy / EMBEDDINGS).read_bytes()
    (package_copy.parent / "other.onnx").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (package_copy / EMBEDDINGS).unlink()
    (package_copy / EMBEDDINGS).symlink_to(package_copy.parent / "other.onnx")
    package = open_package(package_copy)
    with pytest.raises(IntegrityError, match="does not match the manifest"):
        package.read(package.manifest.component("embeddings").files["separate-fp32"])


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256", "policy.json", EMBEDDINGS])
def test_links_to_what_is_no_file(package_copy: Path, name: str) -> None:
    """Neither a device that never ends nor a pipe that never begins is read."""
    os.mkfifo(package_copy.parent / "pipe")
    for target in ("/dev/zero", package_copy.parent / "pipe"):
        (package_copy / name).unlink()
        (package_copy / name).symlink_to(target)
        with pytest.raises(ManifestError, match=r"cannot be read|no readable|is missing"):
            open_package(package_copy).policies()


def test_links_inside_folder_work(package_copy: Path) -> None:
    shutil.move(package_copy / EMBEDDINGS, package_copy / "first.onnx")
    (package_copy / EMBEDDINGS).symlink_to("../first.onnx")
    link = package_copy.parent / "latest"
    link.symlink_to(package_copy, target_is_directory=True)
    assert open_package(link).manifest.labels == LABELS


# Folders that are not whole


def test_other_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="missing is not a folder") as caught:
        open_package(tmp_path / "missing")
    assert "smartbert-export" in caught.value.hint
    with pytest.raises(ManifestError, match=r"holds no readable manifest\.json"):
        open_package(tmp_path)


@pytest.mark.parametrize("lost", [MANIFEST_FILE, DIGEST_FILE])
def test_missing_manifest_or_digest(package_copy: Path, lost: str) -> None:
    (package_copy / lost).unlink()
    with pytest.raises(ManifestError, match=rf"no readable manifest\.json with its {DIGEST_FILE}"):
        open_package(package_copy)


def test_edited_manifest_or_digest(package_copy: Path) -> None:
    digest = (package_copy / DIGEST_FILE).read_text(encoding="ascii")
    for wrong in ("", "0" * 64):
        (package_copy / DIGEST_FILE).write_text(wrong, encoding="ascii")
        with pytest.raises(IntegrityError, match=r"manifest\.json does not match manifest\.sha256"):
            open_package(package_copy)
    (package_copy / DIGEST_FILE).write_text(digest, encoding="ascii")
    manifest = package_copy / MANIFEST_FILE
    manifest.write_text(manifest.read_text(encoding="utf-8").replace('"loud"', '"lewd"'), encoding="utf-8")
    with pytest.raises(IntegrityError, match="does not match"):
        open_package(package_copy)


@pytest.mark.parametrize(
    "file", ["graphs/exit_04.onnx", "tokenizer/tokenizer.json", "tokenizer/settings.json", "golden/expected.npz"]
)
def test_missing_file_at_open(package_copy: Path, file: str) -> None:
    (package_copy / file).unlink()
    with pytest.raises(IntegrityError, match=f"^{file} is missing$"):
        open_package(package_copy)


def test_truncated_file_at_open(package_copy: Path) -> None:
    file = package_copy / EMBEDDINGS
    size = file.stat().st_size
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match=f"has {size - 1} bytes, the manifest says {size}"):
        open_package(package_copy)


def test_changed_file_at_first_use(package_copy: Path) -> None:
    flip_byte(package_copy / EMBEDDINGS, 1000)
    package = open_package(package_copy)
    (entry,) = package.manifest.component("embeddings").files.values()
    with pytest.raises(IntegrityError, match=r"embeddings\.onnx does not match the manifest \(sha256 ") as caught:
        package.read(entry)
    assert entry.sha256[:12] in str(caught.value)
    refresh_hashes(package_copy)
    package = open_package(package_copy)
    (entry,) = package.manifest.component("embeddings").files.values()
    assert package.read(entry) == (package_copy / EMBEDDINGS).read_bytes()


def test_file_removed_after_open(package_copy: Path) -> None:
    package = open_package(package_copy)
    (package_copy / EMBEDDINGS).unlink()
    (entry,) = package.manifest.component("embeddings").files.values()
    with pytest.raises(IntegrityError, match=r"graphs/embeddings\.onnx cannot be read"):
        package.read(entry)


# Look-ups


def test_unknown_part_or_variant(package_dir: Path) -> None:
    manifest = open_package(package_dir).manifest
    with pytest.raises(ManifestError, match="no part 'layer_05'") as caught:
        manifest.component("layer_05")
    assert "layer_04" in caught.value.hint
    with pytest.raises(ManifestError, match="no variant with layout any and precision int8") as caught:
        manifest.variant(precision="int8")
    assert caught.value.hint == "it holds: separate-fp32"


def test_first_matching_variant(package_dir: Path) -> None:
    document = read_manifest(package_dir)
    document["variants"] = [
        {"name": "separate-fp32", "layout": "separate", "precision": "fp32"},
        {"name": "fused-fp32", "layout": "fused", "precision": "fp32"},
        {"name": "fused-int8", "layout": "fused", "precision": "int8"},
    ]
    manifest, _ = parse_manifest(as_bytes(document))
    assert manifest.variant().name == "separate-fp32"
    assert manifest.variant("fused").name == "fused-fp32"
    assert manifest.variant(precision="int8").name == "fused-int8"
