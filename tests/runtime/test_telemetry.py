"""onnxruntime's telemetry: off before it is imported, by every package of ours; the owner's own setting is kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from smartbert_runtime.telemetry import VARIABLE

# onnxruntime's threads write files below the home folder, and open sockets about nine seconds after the import.
WAIT_SECONDS = 14
WATCH = """
import os, pathlib, sys, time
{first}
started, sockets = time.monotonic(), set()
while time.monotonic() - started < float(sys.argv[1]):
    for fd in pathlib.Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(fd)
        except OSError:
            continue
        if target.startswith("socket:"):
            sockets.add(target)
    time.sleep(0.02)
print(len(sockets))
"""
CLASSIFY = "from smartbert_runtime import SmartBert\nSmartBert.load({package!r}).classify(['Who in the world am I?'])"


def bare_environment(home: Path, **more: str) -> dict[str, str]:
    """Without CI, which hides the telemetry, and without a choice of the owner."""
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", VARIABLE, "XDG_CACHE_HOME")}
    return {**kept, "HOME": str(home), **more}


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open sockets in /proc")
def test_no_socket_and_no_file(package_dir: Path, tmp_path: Path) -> None:
    """A package is loaded and classifies; the same program with telemetry left on shows what would be found."""
    watched = {}
    for name, more in (("ours", {}), ("left on", {VARIABLE: "0"})):
        (home := tmp_path / name).mkdir()
        program = WATCH.format(first=CLASSIFY.format(package=str(package_dir)))
        watched[name] = (
            home,
            subprocess.Popen(
                [sys.executable, "-c", program, str(WAIT_SECONDS)],
                env=bare_environment(home, **more),
                cwd=home,
                stdout=subprocess.PIPE,
                text=True,
            ),
        )
    found = {}
    for name, (home, process) in watched.items():
        sockets, _ = process.communicate(timeout=WAIT_SECONDS + 60)
        assert process.returncode == 0
        found[name] = int(sockets), [file for file in home.rglob("*") if file.is_file()]
    assert found["ours"] == (0, [])
    if found["left on"] == (0, []):
        pytest.skip("this build of onnxruntime sends no telemetry, or not here")


@pytest.mark.parametrize(
    "module", ["smartbert", "smartbert_export", "smartbert_bench", "smartbert_runtime.cli.infer", "studies"]
)
def test_every_package_switches_it_off(module: str, tmp_path: Path) -> None:
    """Importing onnxruntime afterwards, as a rival's library does, finds the variable set."""
    program = f"import {module}, os; print(os.environ[{VARIABLE!r}])"
    done = subprocess.run(
        [sys.executable, "-c", program], env=bare_environment(tmp_path), capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n" and done.stderr == ""


@pytest.mark.parametrize(
    ("before", "value", "warns"),
    [("", None, False), ("", "0", False), ("import onnxruntime; ", None, True), ("import onnxruntime; ", "1", False)],
)
def test_owners_choice_and_a_late_import(before: str, value: str | None, warns: bool, tmp_path: Path) -> None:
    program = f"import os; {before}import smartbert_runtime; print(os.environ[{VARIABLE!r}])"
    more = {} if value is None else {VARIABLE: value}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=bare_environment(tmp_path, **more),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == (value or "1")
    assert done.stderr.count("onnxruntime was imported before smartbert_runtime") == (1 if warns else 0)
