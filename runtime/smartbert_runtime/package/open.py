"""Opening a package folder: its digest, schema, paths and sizes are checked; a file's hash when its bytes are used."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
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

# Of the manifest, its digest and policy.json, whose sizes nothing lists.
MOST_BYTES = 1 << 24


@dataclass(frozen=True, kw_only=True)
class Package:
    """An opened package folder: where it is (an absolute path), its manifest, and notes for the user."""

    root: Path
    manifest: Manifest
    notes: tuple[str, ...] = ()

    def read(self, entry: FileEntry) -> bytes:
        """The bytes of one file, checked against their hash; IntegrityError when they are not what was exported."""
        try:
            content = _read(self.root / entry.file, entry.bytes)
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
        try:
            text = _read(self.root / POLICY_FILE, MOST_BYTES).decode("utf-8")
        except (OSError, UnicodeDecodeError) as err:
            raise IntegrityError(f"{POLICY_FILE} cannot be read: {err}", hint="copy the whole folder") from err
        return parse_policy_file(text)


def open_package(folder: Path | str) -> Package:
    """Read and check a package folder: digest, schema, paths, every file's presence and size (not yet its hash).

    Its files may be links, as in a hub's cache: what counts is that the bytes have the hash that the manifest lists.
    """
    root = Path(folder).absolute()  # graphs are read when they are first needed, maybe after a change of folder
    if not root.is_dir():
        raise ManifestError(f"{folder} is not a folder", hint="give the folder that smartbert-export wrote")
    try:
        text = _read(root / MANIFEST_FILE, MOST_BYTES)
        digest = _read(root / DIGEST_FILE, MOST_BYTES).decode("ascii").split()
    except (OSError, UnicodeDecodeError) as err:
        raise ManifestError(
            f"{folder} holds no readable {MANIFEST_FILE} with its {DIGEST_FILE}",
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


def _read(file: Path, most: int) -> bytes:
    """The bytes of a regular file, or of one that a link leads to; OSError for others, and for more than `most`."""
    with open(file, "rb", opener=_open_without_waiting) as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        content = stream.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"more than {most} bytes")
    return content


def _open_without_waiting(file: str, flags: int) -> int:
    return os.open(file, flags | getattr(os, "O_NONBLOCK", 0))  # a named pipe would wait for a writer


def _check_file(root: Path, entry: FileEntry) -> None:
    path = root / entry.file
    if not path.is_file():
        raise IntegrityError(f"{entry.file} is missing", hint="copy the whole folder, or export again")
    if (size := path.stat().st_size) != entry.bytes:
        raise IntegrityError(
            f"{entry.file} has {size} bytes, the manifest says {entry.bytes}",
            hint="the folder was copied incompletely; copy it again, or export again",
        )
