"""What studies say at their end, and where their figures go: the machine, the load, the versions; one JSON a line."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import onnxruntime

from smartbert_bench.conditions import load_average


def conditions(threads: int) -> str:
    """Cores, load average where the system knows one, versions."""
    load = load_average()
    return (
        f"{threads} threads of {os.cpu_count()} {platform.machine()} cores"
        + ("" if load is None else f", load average {load:.1f}")
        + f"; onnxruntime {onnxruntime.__version__}, Python {platform.python_version()}"
    )


def save_line(file: Path | None, found: Mapping[str, object]) -> None:
    """Add the figures to `file`, if there is one, as one line of JSON."""
    if file is not None:
        with file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(found, default=asdict) + "\n")
