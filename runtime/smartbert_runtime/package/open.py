"""Opening a package folder: its digest, schema, paths and sizes are checked; a file's hash when its bytes are used."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from smartbert_runtime.errors import ConfigError, IntegrityError, ManifestError
from smartbert_runtime.package.decode import decode
from smartbert_runtime.package.manifest import (
    DIGEST_FILE,
    MANIFEST_FILE,
    POLICY_FILE,
    SCHEMA_VERSION,
    FileEntry,
    Manifest,
)
from smartbert_runtime.package.part_names import ROLES
from smartbert_runtime.package.policy_file import PolicyFile, parse_policy_file


@dataclass(frozen=True, kw_only=True)
class Package:
    """An opened package folder: where it is, its manifest, and notes for the user."""

    root: Path
    manifest: Manifest
    notes: tuple[str, ...] = ()

    def read(self, entry: FileEntry) -> bytes:
        """The bytes of one file, checked against their hash; IntegrityError when they are not what was exported."""
        try:
            content = (self.root / entry.file).read_bytes()
        except OSError as err:
            raise IntegrityError(
                f"{entry.file} cannot be read ({err.strerror})", hint="copy the whole folder, or export again"
            ) from err
        found = hashlib.sha256(content).hexdigest()
        if found != entry.sha256:
            raise IntegrityError(
                f"{entry.file} does not match the manifest (sha256 {found[:12]}..., expected {entry.sha256[:12]}...)",
                hint="the folder was changed or copied incompletely; export again or copy the whole folder",
            )
        return content

    def policies(self) -> PolicyFile:
        """policy.json, which carries its own digest; IntegrityError when it is missing or does not match."""
        check_inside(self.root, POLICY_FILE)
        try:
            text = (self.root / POLICY_FILE).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as err:
            raise IntegrityError(f"{POLICY_FILE} cannot be read: {err}", hint="copy the whole folder") from err
        return parse_policy_file(text)


def open_package(folder: Path | str) -> Package:
    """Read and check a package folder: digest, schema, paths, every file's presence and size (not yet its hash)."""
    root = Path(folder)
    if not root.is_dir():
        raise ManifestError(f"{root} is not a folder", hint="give the folder that smartbert-export wrote")
    try:
        text = (root / MANIFEST_FILE).read_bytes()
        digest = (root / DIGEST_FILE).read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError) as err:
        raise ManifestError(
            f"{root} holds no readable {MANIFEST_FILE} with its {DIGEST_FILE}",
            hint="give the folder that smartbert-export wrote, whole",
        ) from err
    if not digest or hashlib.sha256(text).hexdigest() != digest[0]:
        raise IntegrityError(
            f"{MANIFEST_FILE} does not match {DIGEST_FILE}",
            hint="the manifest was edited or copied incompletely; export again or copy the whole folder",
        )
    manifest, notes = parse_manifest(text)
    for entry in manifest.files():
        _check_file(root, entry)
    return Package(root=root, manifest=manifest, notes=notes)


def parse_manifest(text: bytes) -> tuple[Manifest, tuple[str, ...]]:
    """Manifest and notes from the JSON text; ManifestError for a newer schema or anything invalid."""
    try:
        parsed = json.loads(text)
    except ValueError as err:
        raise ManifestError(f"{MANIFEST_FILE} is not JSON: {err}", hint="export again") from err
    version = parsed.get("schema_version") if isinstance(parsed, dict) else None
    major, minor = _version(version)
    own_major, own_minor = _version(SCHEMA_VERSION)
    if major != own_major:
        raise ManifestError(
            f"{MANIFEST_FILE} has schema version {version}, this runtime reads {SCHEMA_VERSION}",
            hint="install a newer smartbert" if major > own_major else "export again with this version",
        )
    unknown: list[str] | None = [] if minor > own_minor else None
    try:
        manifest = decode(Manifest, parsed, where="manifest", unknown=unknown)
    except ConfigError as err:
        raise ManifestError(f"{MANIFEST_FILE}: {err}", hint="export again") from err
    _check_contents(manifest)
    return manifest, tuple(f"schema {version}: ignored the unknown key {key}" for key in unknown or ())


def _version(text: object) -> tuple[int, int]:
    try:
        major, minor = str(text).split(".")
        return int(major), int(minor)
    except ValueError as err:
        raise ManifestError(f"schema_version {text!r} is not of the form '1.0'", hint="export again") from err


def _check_contents(manifest: Manifest) -> None:
    if not manifest.variants:
        raise ManifestError("the manifest lists no variant", hint="export again")
    for component in manifest.components:
        for name in component.files:
            if name not in {variant.name for variant in manifest.variants}:
                raise ManifestError(
                    f"{component.name} has a file for the unlisted variant {name!r}", hint="export again"
                )
    for component in manifest.components:
        if component.role not in ROLES:
            raise ManifestError(
                f"{component.name} has the role {component.role!r}, which this version does not know",
                hint="it was exported by another version of smartbert: export again",
            )
    shape = manifest.model.fixed_shape
    if shape is not None and (len(shape) != 2 or min(shape) < 1 or shape[1] != manifest.model.max_length):
        raise ManifestError(f"the fixed shape {list(shape)} is not batch and longest input", hint="export again")
    for entry in manifest.files():
        path = PurePosixPath(entry.file)
        if path.is_absolute() or ".." in path.parts or "\\" in entry.file or ":" in entry.file:
            raise ManifestError(
                f"the manifest names {entry.file!r}, a path that leaves the folder",
                hint="do not use this package",
            )


def check_inside(root: Path, file: str) -> None:
    """ManifestError for a link that leads out of the folder."""
    if not (root / file).resolve().is_relative_to(root.resolve()):
        raise ManifestError(f"{file} is a link that leaves the folder", hint="do not use this package")


def _check_file(root: Path, entry: FileEntry) -> None:
    path = root / entry.file
    if not path.is_file():
        raise IntegrityError(f"{entry.file} is missing", hint="copy the whole folder, or export again")
    check_inside(root, entry.file)
    if (size := path.stat().st_size) != entry.bytes:
        raise IntegrityError(
            f"{entry.file} has {size} bytes, the manifest says {entry.bytes}",
            hint="the folder was copied incompletely; copy it again, or export again",
        )
