"""smartbert-infer in a pipe whose reader leaves early: it ends quietly, as `smartbert-infer ... | head -1` must."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SENTENCES

CALL = "from smartbert_runtime.cli.infer import main; main()"


@pytest.mark.parametrize(("texts", "why"), [(3000, "while it prints"), (3, "when all fits into the pipe")])
def test_a_reader_that_leaves_early_is_no_error(package_dir: Path, tmp_path: Path, texts: int, why: str) -> None:
    file = tmp_path / "many.txt"
    file.write_text("".join(f"{SENTENCES[number % 24]}\n" for number in range(texts)), encoding="utf-8")
    command = [sys.executable, "-c", CALL, str(package_dir), "--file", str(file), "--format", "json", "--no-skip"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        if texts > 100:
            assert json.loads(process.stdout.readline())["index"] == 0
        process.stdout.close()
        errors = process.stderr.read().decode()
        code = process.wait(timeout=120)
    assert "Traceback" not in errors and "BrokenPipe" not in errors and "error" not in errors.lower(), why
    assert code == 0
