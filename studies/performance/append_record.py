"""The end of every study: its conditions in one line (machine, load, versions), its figures as one line of JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import onnxruntime

from smartbert_bench.conditions import load_average


def conditions_line(threads: int) -> str:
    """Cores, load average where the system reports one, versions."""
    load = load_average()
    return (
        f"{threads} threads of {os.cpu_count()} {platform.machine()} cores"
        + ("" if load is None else f", load average {load:.1f}")
        + f"; onnxruntime {onnxruntime.__version__}, Python {platform.python_version()}"
    )


def append_record(file: Path | None, record: Mapping[str, object]) -> None:
    """Append the figures to `file`, if one is given, as one line of JSON."""
    if file is not None:
        with file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record, default=asdict) + "\n")
