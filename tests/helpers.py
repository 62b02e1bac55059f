"""What several tests do: edit a package folder and make its hashes fit again, call a command inside this process."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a command left behind."""

    code: int
    out: str
    err: str


def run_main(
    main: Callable[[], object],
    *arguments: str | Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Call a command's entry point with these arguments; anything but SystemExit escapes, as a traceback would."""
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_info:
        main()
    captured = capsys.readouterr()
    code = exit_info.value.code
    return Run(code=code if isinstance(code, int) else 0, out=captured.out, err=captured.err)


def edit_manifest(package: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change manifest.json and its digest, as someone would who means the change."""
    file = package / "manifest.json"
    manifest = json.loads(file.read_text(encoding="utf-8"))
    change(manifest)
    content = json.dumps(manifest).encode()
    file.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    (package / "manifest.sha256").write_text(f"{digest}  manifest.json\n", encoding="ascii")


def refresh_hashes(package: Path) -> None:
    """Make the manifest vouch for the files as they are now."""
    edit_manifest(package, lambda manifest: _refresh(manifest, package))


def _refresh(value: Any, package: Path) -> None:
    if isinstance(value, dict) and {"file", "sha256", "bytes"} <= set(value):
        content = (package / value["file"]).read_bytes()
        value |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _refresh(item, package)


def swap_files(package: Path, one: str, other: str) -> None:
    """Exchange two files of a package, hashes refreshed."""
    first, second = (package / one).read_bytes(), (package / other).read_bytes()
    (package / one).write_bytes(second)
    (package / other).write_bytes(first)
    refresh_hashes(package)


def change_weight(
    package: Path, part: str, weight: str, change: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]
) -> None:
    """Change one initializer of one graph, hashes refreshed."""
    file = package / "graphs" / f"{part}.onnx"
    graph = onnx.load_model_from_string(file.read_bytes())
    (found,) = (initializer for initializer in graph.graph.initializer if initializer.name == weight)
    changed = change(numpy_helper.to_array(found)).astype(np.float32)
    found.raw_data = changed.tobytes()
    file.write_bytes(graph.SerializeToString(deterministic=True))
    refresh_hashes(package)


def assert_named_error(run: Run, *words: str, code: int = 1) -> None:
    """The command ended with `error:` and `hint:` lines that hold these words, printed no data and no traceback."""
    assert run.code == code, run
    assert run.out == "" or code == 3, run.out
    assert "Traceback" not in run.err
    lines = run.err.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    hints = [line for line in lines if line.startswith("hint: ")]
    assert len(errors) == 1 and len(hints) == 1, run.err
    assert len(errors[0]) > len("error: ") and len(hints[0]) > len("hint: ")
    for word in words:
        assert word in run.err, f"{word!r} is not in {run.err!r}"
